"""CoT prompt distillation: knowledge teaches a prompt that stands before the text alone (Chen and Feng, 2023).

arXiv 2306.14122. A large model explains a post in several dimensions; a compact student reads the explanations, and the
same weights, which see the text alone behind a learnable prompt, are taught to say what the reading branch says:

- knowledge view ``[x; I; c]``: text, caption, explanations (``View(context=("caption", "knowledge"))``);
- text view ``[p; x]`` with ``p = CondPrompt(x)`` (``View(prompt=True)``), `fusion.prompt`.

One encoder and one head serve both (a CRF over words; for relations, the states of both opening marks). What is
learned, and how the views meet, is the objective ``prompt_distillation`` (`distill.objectives`). Whatever was left out
of a view, the checkpoint answers it: text (mode A), text and caption (B), everything (C), or the text first and
everything where that leaves doubt (D, `distill.modes`).

The paper has no code, and leaves open where the divergence stands, its weight, and the form of the prompt; ours are
settings. Its picture is a caption throughout, so no picture feature enters here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ..fused import Fused, FusedConfig, Fusion
from ..fusion.prompt import ConditionalPrompt
from ..student import View
from ..system import Picture, UnsupportedView

#: Stands in a batch whose view has the prompt.
PROMPTED = "prompted"


class CoTPromptConfig(FusedConfig):
    """What a `CoTPrompt` is made of.

    Attributes:
        prompt_length: vectors ``m`` of the prompt; 0 for none (an ablation).
        prompt_conditional: whether the prompt looks at the text; without, it is the same before every text (an
            ablation).
        prompt_heads: heads of its attention.
    """

    tasks = ("ner", "relations")
    objectives = ("gold", "prompt_distillation")

    prompt_length: int = Field(16, ge=0)
    prompt_conditional: bool = True
    prompt_heads: int = Field(8, ge=1)
    sees: ClassVar[bool] = False


class CoTPrompt(Fused):
    """One encoder, a conditional prompt and the head of its task."""

    NAME = "cot_prompt"
    Config = CoTPromptConfig

    def parts(self) -> None:
        """The prompt, or None."""
        config, width = self.config, self.encoder.hidden
        self.prompt = (
            ConditionalPrompt(width, config.prompt_length, config.prompt_heads, config.prompt_conditional)
            if config.prompt_length
            else None
        )

    def _check(self, examples: Sequence[Any], view: View) -> None:
        if view.prompt and self.prompt is None:
            raise UnsupportedView("this student has no prompt (prompt_length=0)")
        super()._check(examples, replace(view, prompt=False))

    def more(self, examples: Sequence[Any], view: View) -> tuple[dict[str, Tensor], Counter[str]]:
        """Whether the view has the prompt."""
        return ({PROMPTED: torch.tensor(True)} if view.prompt else {}), Counter()

    def fuse(self, tensors: dict[str, Tensor], picture: Picture | None) -> Fusion:
        """States of ``[p; x; side texts]`` or ``[x; side texts]``.

        The prompt reads the text's own sub-tokens alone, never the side texts. It takes no position, so ``x`` stands
        at the same positions in both views.
        """
        if PROMPTED not in tensors or self.prompt is None:
            return Fusion(self.encode(tensors))
        return Fusion(self.encode(tensors, self.prompt(self.encoder.embeddings(tensors["input_ids"]), tensors["text"])))
