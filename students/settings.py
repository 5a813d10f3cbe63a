"""What students are made of: the settings that a recipe names and ``config.json`` keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import Field

from ..tasks.record import Record
from .student import View

#: A contradiction: the settings concerned, and what to do about it.
Clash = tuple[tuple[str, ...], str]


class StudentConfig(Record):
    """What every student's settings have. Each student adds its own, and all of them are keys of its recipes.

    Attributes:
        view: what it is shown when nothing is said; made of the recipe's ``text``, ``context`` and ``images``.
        image_encoder: an `ImageEncoder`'s name, or None for a student that never sees.
    """

    #: The tasks it answers, and the objectives it can learn by.
    tasks: ClassVar[tuple[str, ...]] = ()
    objectives: ClassVar[tuple[str, ...]] = ("gold",)
    #: Fields that follow from the rest of a recipe and are no keys of it.
    derived: ClassVar[frozenset[str]] = frozenset({"view"})

    view: View = View()
    image_encoder: str | None = None

    def clashes(self, recipe: Any) -> Iterator[Clash]:
        """What contradicts the recipe it stands in, or itself."""
        yield from ()

    def pretrained(self, images: bool) -> str:
        """The pretrained parts and how they are tuned, for a result record."""
        return self.image_encoder or "none" if images else "none"


class BackboneConfig(StudentConfig):
    """Settings of a student on a transformers backbone.

    Attributes:
        backbone: a packaged model's short name, a path or a hub name.
        lora_rank: rank of the adapter on every linear layer of the backbone; 0 trains the backbone itself.
        lora_alpha, lora_dropout: peft's settings of the same names; on a CPU dropout costs a fifth of a step.
        max_tokens: the longest row in sub-tokens, or None for the backbone's own limit.
        context_tokens: the most sub-tokens of side text in a row, or None for as many as fit.
        dropout: on the states that heads read.
    """

    backbone: str = "minilm"
    lora_rank: int = Field(32, ge=0)
    lora_alpha: float = Field(64, gt=0)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    max_tokens: int | None = Field(None, ge=8)
    context_tokens: int | None = Field(None, ge=0)
    dropout: float = Field(0.1, ge=0, lt=1)

    def pretrained(self, images: bool) -> str:
        """The backbone, its adapter, and the frozen image encoder where pictures are seen."""
        tuned = f"LoRA r={self.lora_rank}" if self.lora_rank else "all weights"
        sees = f" + {self.image_encoder} (frozen)" if images and self.image_encoder else ""
        return f"{self.backbone} ({tuned}){sees}"
