"""What every student of the zoo does alike: answer in batches, see pictures, be kept in a folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from ..tasks import TASKS
from ..tasks.images import ImageFault
from . import saving
from .encoders import text as text_encoder
from .encoders.captions import CAPTION
from .encoders.sight import Sight, reads_captions, sight
from .encoders.text import TextEncoder
from .settings import BackboneConfig, StudentConfig
from .student import Batch, Output, View


@dataclass
class Picture:
    """The pictures of a batch's examples, or of its rows.

    Attributes:
        levels: one ``[R, cells, channels]`` a level (`encoders.image`); zeros where there is none.
        present: bool ``[R]``, which rows have one.
    """

    levels: list[Tensor]
    present: Tensor


class UnsupportedView(ValueError):
    """A view, or a question, that a student was not built for: says what is missing."""


class System(nn.Module, ABC):
    """A student: `build`, `collate`, `forward` and `answer` are its own, the rest is here.

    Args:
        config: what it is made of.
        schemas: the schema of each task it serves, by the task's key.
        encoder: its pretrained text backbone, or None for one without.
        levels: ``(cells, channels)`` of each level that its image encoder gives, or None where it never sees.
        vocabulary: what it learned of the training examples before the first step (words, values), as plain JSON.

    Attributes:
        view: what it is shown when nothing is said.
        features: gives what `ImageEncoder.encode` gives for some pictures; may be replaced by a cache of it.
        refuse_broken_images: whether a broken picture is an `ImageFault`, or missing and counted ``image_broken``.
        given_up: what the last `predict` had to give up, counted (``context_tokens_cut``, ``image_missing``).
        watch: told of each batch that is answered, with the scores that the answers were read from; or None.
    """

    #: Its name in ``STUDENTS``.
    NAME: ClassVar[str]
    #: The class of its settings.
    Config: ClassVar[type[StudentConfig]]
    #: Its picture features: cells a side of each depth, and how many depths.
    GRID: ClassVar[int] = 2
    DEPTHS: ClassVar[int] = 4
    #: The most pictures of an example that it looks at.
    PICTURES: ClassVar[int] = 1

    def __init__(
        self,
        config: Any,
        schemas: Mapping[str, Any],
        encoder: TextEncoder | None = None,
        levels: Sequence[tuple[int, int]] | None = None,
        vocabulary: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.config, self.schemas, self.view = config, dict(schemas), config.view
        self.encoder, self.levels, self.vocabulary = encoder, levels, dict(vocabulary or {})
        self.features: Callable[[Sequence[Any]], list[Tensor]] = self._encode_images
        self.refuse_broken_images = True
        self.given_up: dict[str, int] = {}
        self.watch: Callable[[Batch, Mapping[str, Tensor]], None] | None = None
        self.build()

    # --- what a system says itself ---

    @abstractmethod
    def build(self) -> None:
        """Make its modules, of its ``config``, ``schemas``, ``encoder``, ``levels`` and ``vocabulary``."""

    @classmethod
    def prepare(cls, config: Any, schemas: Mapping[str, Any], examples: Sequence[Any]) -> dict[str, Any]:
        """The vocabulary of some training examples; most students need none."""
        return {}

    @abstractmethod
    def collate(self, examples: Sequence[Any], view: View | None = None) -> Batch:
        """Tensors of some examples, with gold labels where they have any."""

    @abstractmethod
    def forward(self, batch: Batch) -> Output:
        """Losses and scores of a batch."""

    @abstractmethod
    def answer(self, examples: Sequence[Any], view: View) -> tuple[list[tuple[Any, Any]], Mapping[str, int]]:
        """``(answer, its probabilities)`` of each example of one batch, and what was given up."""

    # --- making and keeping ---

    @classmethod
    def create(cls, config: Any, schemas: Mapping[str, Any], examples: Sequence[Any] = ()) -> Self:
        """A new student on pretrained parts; ``examples`` are those it will be trained on."""
        encoder = cls._new_encoder(config) if isinstance(config, BackboneConfig) else None
        levels = cls.eyes(config).levels if config.image_encoder else None
        return cls(config, schemas, encoder, levels, cls.prepare(config, schemas, examples))

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """The student that `save_pretrained` wrote, in eval mode."""
        folder = Path(folder)
        kept = saving.read_config(folder, cls.NAME)
        config = cls.Config(**kept["config"])
        encoder = cls._kept_encoder(folder, config) if isinstance(config, BackboneConfig) else None
        levels = [(cells, channels) for cells, channels in kept["image_levels"] or ()]
        student = cls(config, kept["schemas"], encoder, levels or None, kept.get("vocabulary", {}))
        saving.read_weights(folder, student)
        return student.eval()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write ``config.json``, ``model.safetensors``, a card and, of a backbone, its adapter or weights."""
        settings = {
            "config": self.config.model_dump(mode="json"),
            "schemas": {key: schema.model_dump(mode="json") for key, schema in self.schemas.items()},
            "image_levels": self.levels,
        }
        if self.vocabulary:
            settings["vocabulary"] = self.vocabulary
        saving.write(Path(folder), self.NAME, self, self.encoder, settings)

    @classmethod
    def _new_encoder(cls, config: BackboneConfig) -> Any:
        encoder = text_encoder.load(config.backbone, max_tokens=config.max_tokens)
        if config.lora_rank:
            encoder.model = text_encoder.with_lora(
                encoder.model, config.lora_rank, config.lora_alpha, config.lora_dropout
            )
        return encoder

    @classmethod
    def _kept_encoder(cls, folder: Path, config: BackboneConfig) -> Any:
        return saving.read_encoder(folder, config.backbone, config.max_tokens)

    # --- answering ---

    @torch.no_grad()
    def predict(
        self, examples: Sequence[Any], view: View | None = None, batch_size: int = 32, return_scores: bool = False
    ) -> Any:
        """The task's answers, in the order given; with ``return_scores`` a list of ``(answer, scores)``.

        Scores are probabilities: for `ner` one an entity, for `attributes` one an attribute; None where there is none.
        """
        given_up = Counter[str]()

        def answer(some: Sequence[Any]) -> Sequence[Any]:
            answered, counts = self.answer(some, view or self.view)
            given_up.update(counts)
            return answered

        found = self.in_batches(examples, batch_size, answer)
        self.given_up = dict(given_up)
        return found if return_scores else [answer for answer, _ in found]

    @torch.no_grad()
    def in_batches(
        self, examples: Sequence[Any], batch_size: int, work: Callable[[Sequence[Any]], Sequence[Any]]
    ) -> list[Any]:
        """What ``work`` says of each example, in the order given: in eval mode, adapters merged, batch by batch."""
        was_training = self.training
        self.eval()
        # Texts of like length share a batch, so that little of it is padding.
        order = sorted(range(len(examples)), key=lambda i: len(examples[i].text))
        found: list[Any] = [None] * len(examples)
        try:
            with text_encoder.merged(getattr(self.encoder, "model", None)):
                for start in range(0, len(order), batch_size):
                    at = order[start : start + batch_size]
                    for i, one in zip(at, work([examples[i] for i in at]), strict=True):
                        found[i] = one
        finally:
            self.train(was_training)
        return found

    def check_texts(self, examples: Sequence[Any], view: View, task: str) -> None:
        """Refuse what a student of a text, its side texts and its picture is not shown, and examples of other tasks."""
        if view.prompt or view.explain or not view.text:
            raise UnsupportedView(f"{self.NAME} reads a text, its side texts and its picture, and nothing else")
        for example in examples:
            if not isinstance(example, TASKS[task].Example):
                raise UnsupportedView(f"example {example.id}: this student was built for the task {task}")

    # --- seeing ---

    @cached_property
    def image_encoder(self) -> Sight:
        """The frozen image encoder, loaded when a picture is first seen."""
        return self.eyes(self.config)

    @classmethod
    def eyes(cls, config: Any) -> Sight:
        """The frozen image encoder of such a student."""
        return sight(config.image_encoder, cls.GRID, cls.DEPTHS)

    @property
    def reads_captions(self) -> bool:
        """Whether captions stand for its pictures."""
        return reads_captions(self.config.image_encoder)

    def _encode_images(self, images: Sequence[Any]) -> list[Tensor]:
        with torch.no_grad():
            return self.image_encoder.encode(images)

    def pictures(self, examples: Sequence[Any]) -> tuple[dict[str, Tensor], Counter[str]]:
        """Features of the examples' pictures; nothing if none has one.

        ``image.level0``, ... ``[B, cells, channels]`` with ``image.present [B]``. Where a student looks at several
        (``PICTURES``), ``[B, P, cells, channels]`` and ``[B, P]``.
        """
        if self.levels is None:
            raise UnsupportedView("this student cannot see (image_encoder=None)")
        counts = Counter[str]()
        shown = [self._shown(example) for example in examples]
        seen = {(i, p): image for i, own in enumerate(shown) for p, image in enumerate(own[: self.PICTURES])}
        counts["caption_missing" if self.reads_captions else "image_missing"] = sum(not own for own in shown)
        counts[f"image_beyond_{'first' if self.PICTURES == 1 else self.PICTURES}"] = sum(
            max(0, len(own) - self.PICTURES) for own in shown
        )
        features = self._features_of(seen, counts)
        if not features:
            return {}, +counts
        shape = (len(examples), self.PICTURES)
        present = torch.zeros(shape, dtype=torch.bool)
        levels = [torch.zeros(*shape, cells, channels) for cells, channels in self.levels]
        for (i, p), own in features.items():
            present[i, p] = True
            for level, found in zip(levels, own, strict=True):
                level[i, p] = found.float().cpu()
        tensors = {"image.present": present, **{f"image.level{n}": level for n, level in enumerate(levels)}}
        if self.PICTURES == 1:
            tensors = {name: value[:, 0] for name, value in tensors.items()}
        return tensors, +counts

    def seen(self, tensors: Mapping[str, Tensor], of_row: Tensor | None = None) -> Picture | None:
        """What `pictures` gave for a batch, example by example, or for rows that belong to examples ``of_row [R]``.

        None where no example has a picture.
        """
        if "image.present" not in tensors:
            return None
        assert self.levels is not None
        of = lambda values: values if of_row is None else values[of_row]
        levels = [of(tensors[f"image.level{number}"]) for number in range(len(self.levels))]
        return Picture(levels, of(tensors["image.present"]))

    def _shown(self, example: Any) -> Sequence[Any]:
        """Its pictures, or the caption that stands for them."""
        if not self.reads_captions:
            images: Sequence[Any] = example.images
            return images
        caption = example.context.get(CAPTION, "").strip()
        return (caption,) if caption else ()

    def _features_of(
        self, seen: Mapping[tuple[int, int], Any], counts: Counter[str]
    ) -> dict[tuple[int, int], list[Tensor]]:
        """Each picture's features, a tensor a level; broken ones are refused, or counted."""
        try:
            found = self.features(list(seen.values())) if seen else []
            return {place: [level[at] for level in found] for at, place in enumerate(seen)}
        except ImageFault:
            if self.refuse_broken_images:
                raise
        features = {}
        for place, image in seen.items():
            try:
                features[place] = [level[0] for level in self.features([image])]
            except ImageFault:
                counts["image_broken"] += 1
        return features

    # --- learning ---

    @property
    def device(self) -> torch.device:
        """Where its weights lie."""
        return next(self.parameters()).device

    def parameter_groups(self, learning_rate: float, head_learning_rate: float) -> list[dict[str, Any]]:
        """Every trainable parameter once: the backbone's (or its adapter's), then all others, as an optimiser wants."""
        trained = [p for p in self.parameters() if p.requires_grad]
        backbone = [p for p in self.encoder.parameters() if p.requires_grad] if self.encoder is not None else []
        known = {id(p) for p in backbone}
        others = [p for p in trained if id(p) not in known]
        assert len(trained) == len(backbone) + len(others)
        groups = [
            {"name": "backbone", "params": backbone, "lr": learning_rate},
            {"name": "heads", "params": others, "lr": head_learning_rate},
        ]
        return [group for group in groups if group["params"]]
