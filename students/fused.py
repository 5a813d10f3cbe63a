"""A text encoder whose states meet a picture before the task's head reads them: the frame of most systems for entities
and relations. Such a system is its fusion, and nothing else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ..tasks import ner, relations
from .collate import Found, Item, Layout
from .encoders.shapes import InputShapes
from .encoders.sight import Sight, reads_captions, sight
from .encoders.text import TextEncoder
from .heads.crf import CRF
from .heads.pair import PairHead
from .heads.tagging import TaggingHead
from .settings import BackboneConfig, Clash, StudentConfig
from .student import Batch, Output, View
from .system import Picture, System, UnsupportedView


class FusedConfig(BackboneConfig):
    """What a `Fused` is made of; each system adds its own.

    Attributes:
        word_shapes: whether it is told each word's casing, which a lower-case vocabulary hides.
        copies: whether each tagged word also reads its repetitions in the side text (`fusion.copies`).
        proposals: what parts of a picture are, of a system that looks at some (`encoders.regions`): ``salient``,
            ``grid``, or a detector's name.
    """

    tasks: ClassVar[tuple[str, ...]] = ("ner", "relations")

    word_shapes: bool = False
    copies: bool = False
    proposals: str = "salient"
    #: How many parts of a picture its system looks at beside the whole.
    crops: ClassVar[int] = 0
    #: Whether pictures are seen; to a system that does not, a picture is what is said of it, in the side texts.
    sees: ClassVar[bool] = True

    def clashes(self, recipe: Any) -> Iterator[Clash]:
        """Picture features for a system that would not look at them."""
        yield from super().clashes(recipe)
        if not self.sees and (recipe.images or self.image_encoder):
            yield (
                ("images", "image_encoder"),
                f"the student {recipe.student} reads pictures as side texts (caption): leave images and image_encoder "
                "out",
            )

    def pretrained(self, images: bool) -> str:
        """The backbone, and what sees: the encoder and, of a system that looks at parts, whose parts."""
        said = super().pretrained(images)
        if not self.crops:
            return said
        parts = "pieces" if reads_captions(self.image_encoder) else f"{self.proposals} crops"
        return said.replace("(frozen)", f"(frozen; {self.crops} {parts})")


@dataclass
class Fusion:
    """What a system made of a batch.

    Attributes:
        states: ``[R, T, d]`` of the rows, as wide as the system's ``width``.
        losses: what it is to minimise beside its head's loss, by name, already weighed.
        beside: ``[B, c]``, what a pair is judged by beside its mentions' states (``beside`` of the system), or None.
    """

    states: Tensor
    losses: dict[str, Tensor] = field(default_factory=dict)
    beside: Tensor | None = None


class Fused(System):
    """Rows of a text are encoded and fused with the picture by `fuse`; a tagging head or a pair head answers.

    A system says in `parts` what it is made of and in `fuse` what it does. Where no example of a batch has a picture
    `fuse` is given None, and a row without one must come out as if it had been alone: that is tested of each.

    Attributes:
        head: of ``ner`` a `TaggingHead`, of ``relations`` a `PairHead`.
        width: of the states that the head reads; the backbone's, unless `parts` sets it.
        beside: width of `Fusion.beside`; 0, unless `parts` sets it.
    """

    Config: ClassVar[type[StudentConfig]] = FusedConfig
    config: Any
    encoder: TextEncoder

    def build(self) -> None:
        """The parts that all have in common, and the system's own."""
        config, encoder = self.config, self.encoder
        served = [key for key in config.tasks if key in self.schemas]
        if len(served) != 1 or len(self.schemas) != 1:
            known = ", ".join(self.schemas) or "none"
            raise UnsupportedView(f"{self.NAME} is for one task of {', '.join(config.tasks)}; schemas given: {known}")
        self.task = served[0]
        self.layout = Layout(encoder, config.context_tokens)
        self.width, self.beside = encoder.hidden, 0
        self.shapes = InputShapes(encoder.hidden, config.word_shapes, marks=self.task == "relations")
        self.parts()
        schema = self.schemas[self.task]
        self.head: TaggingHead | PairHead
        if self.task == "ner":
            self.head = TaggingHead(self.width, schema.labels, config.dropout, config.copies)
        else:
            self.head = PairHead(self.width, schema, config.dropout, self.beside)

    @property
    def crf(self) -> CRF:
        """The tagging head's, whose posteriors objectives compare."""
        assert isinstance(self.head, TaggingHead)
        return self.head.crf

    @classmethod
    def eyes(cls, config: Any) -> Sight:
        """The frozen image encoder; of a system that looks at ``crops`` parts, one that cuts them out: the cells of a
        level are those of the whole picture, then those of each part.
        """
        return sight(config.image_encoder, cls.GRID, cls.DEPTHS, config.crops, config.proposals)

    # --- what a system says itself ---

    def parts(self) -> None:
        """Make the modules of the fusion; may set ``width`` and ``beside``."""

    def fuse(self, tensors: dict[str, Tensor], picture: Picture | None) -> Fusion:
        """States of the rows, having met the pictures. Here: the text's alone."""
        return Fusion(self.encode(tensors))

    def more(self, examples: Sequence[Any], view: View) -> tuple[dict[str, Tensor], Counter[str]]:
        """Tensors of its own (a parse, evidence), and what was given up."""
        return {}, Counter()

    # --- reading ---

    def encode(self, tensors: dict[str, Tensor], before: Tensor | None = None) -> Tensor:
        """The backbone's states ``[R, T, d]`` of rows; ``before [R, m, d]`` are vectors that stand before them."""
        rows = tensors["input_ids"], tensors["attention_mask"], tensors["token_type_ids"]
        states: Tensor = self.encoder(*rows, self.shapes(tensors["shapes"]), before)
        return states

    def collate(self, examples: Sequence[Any], view: View | None = None) -> Batch:
        """Rows of the texts, gold where there is any, and the pictures' features."""
        view = view or self.view
        self._check(examples, view)
        items = [Item(i, example) for i, example in enumerate(examples)]
        tensors, counts = self.head.collate(items, self.layout, view, self.training)
        more, given_up = self.more(examples, view)
        tensors, counts = tensors | more, counts + given_up
        if view.images:
            pictures, given_up = self.pictures(examples)
            tensors, counts = tensors | pictures, counts + given_up
        return Batch(tensors, examples, view, dict(counts))

    def _check(self, examples: Sequence[Any], view: View) -> None:
        self.check_texts(examples, view, self.task)

    def forward(self, batch: Batch) -> Output:
        """Losses and scores: ``emissions [B, W, K]`` with ``word_mask [B, W]``, or ``pair [B, R + 1]``."""
        tensors = batch.tensors
        fusion = self.fuse(tensors, self.seen(tensors, tensors["example"]))
        if isinstance(self.head, PairHead):
            loss, scores = self.head.score(fusion.states, tensors, fusion.beside)
        else:
            loss, scores = self.head.score(fusion.states, tensors)
        if loss is None:
            return Output(None, {}, scores)
        losses = {self.task: loss, **fusion.losses}
        return Output(torch.stack(list(losses.values())).sum(), losses, scores)

    def answer(self, examples: Sequence[Any], view: View) -> tuple[list[tuple[Any, Any]], Mapping[str, int]]:
        """The entities of each text, or the relation of each pair, with their probabilities."""
        bare = [example.model_copy(update={"gold": None}) for example in examples]
        batch = self.collate(bare, view).to(self.device)
        items = [Item(i, example) for i, example in enumerate(bare)]
        scores = self(batch).scores
        if self.watch is not None:
            self.watch(batch, scores)
        found = self.head.answers(items, self.layout, scores, batch.tensors)
        return [as_answer(one) for one in found], batch.counts


def as_answer(found: Found) -> tuple[Any, Any]:
    """An example's answer and its probabilities, of what a tagging or a pair head found."""
    if isinstance(found, tuple):
        relation, sure = found
        return relations.Answer(relation=relation), sure
    assert isinstance(found, list)
    return ner.Answer(entities=tuple(entity for entity, _ in found)), [sure for _, sure in found]
