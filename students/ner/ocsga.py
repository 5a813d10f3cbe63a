"""OCSGA: objects of the picture as words that the tweet attends to; BiLSTM, co-attention, CRF (Wu et al., MM 2020)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ...tasks.images import Image
from ..encoders.sight import Sight, sight
from ..encoders.vectors import WordVectors
from ..encoders.words import units
from ..fusion.coattention import CoAttention
from ..fusion.copies import COMMON, tells
from ..fusion.graph import part_vectors
from ..settings import Clash
from ..system import Picture, UnsupportedView
from .words import WordTagger, WordTaggerConfig

#: How an image encoder's name begins if words are the objects; the rest names the side text that has them.
WORDS = "words:"


class OCSGAConfig(WordTaggerConfig):
    """What an `OCSGA` is made of.

    Attributes:
        image_encoder: ``words:SIDE_TEXT`` for objects by name, out of a side text (``words:caption``); else that of a
            picture's parts, which are its objects then.
        proposals: what parts of a picture are (`encoders.regions`).
        attention_heads: of each attention.
        self_attention: whether words and objects attend to themselves before the words attend to the objects.
        attention_dropout: in the co-attention.
    """

    proposals: str = "salient"
    attention_heads: int = Field(2, ge=1)
    self_attention: bool = True
    attention_dropout: float = Field(0.1, ge=0, lt=1)
    crops: ClassVar[int] = 4

    @property
    def object_words(self) -> str:
        """Name of the side text whose words are the objects, or ""."""
        name = self.image_encoder or ""
        return name.removeprefix(WORDS) if name.startswith(WORDS) else ""

    def clashes(self, recipe: Any) -> Iterator[Clash]:
        """Objects by name, but no vectors of words; heads that do not divide the width."""
        yield from super().clashes(recipe)
        if self.object_words and not (self.vectors or self.word_vectors):
            yield (
                ("image_encoder", "vectors"),
                f"{self.image_encoder} needs vectors (a file) or word_vectors (a model)",
            )
        if 2 * self.hidden % self.attention_heads:
            yield ("hidden", "attention_heads"), "2 * hidden must be a multiple of attention_heads"


class ObjectWords:
    """Objects by name: the vectors that the text's words have, with the face of an image encoder.

    Attributes:
        levels: one, ``[count, width]``; zeros where there are fewer objects.
    """

    def __init__(self, count: int, vectors: WordVectors | None = None) -> None:
        self.vectors = vectors
        self.levels = [(count, vectors.width if vectors is not None else 0)]

    @torch.no_grad()
    def encode(self, images: Sequence[str]) -> list[Tensor]:
        """Of some side texts ``[B, count, width]``; a name of several words has their mean."""
        assert self.vectors is not None
        (count, width), table = self.levels[0], self.vectors.table
        found = table.new_zeros(len(images), count, width)
        for text, slots in zip(images, found, strict=True):
            known = [[rows for word in name if (rows := self.vectors.rows(word))] for name in object_names(text)]
            for slot, words in zip(slots, filter(None, known), strict=False):
                slot.copy_(torch.stack([table[rows].mean(0) for rows in words]).mean(0))
        return [found]


class OCSGA(WordTagger):
    """Object-aware adaptive co-attention: ``tags = CRF(W LN(x + F))`` with `fusion.coattention.CoAttention`.

    ``x`` are states of a BiLSTM over vectors of words and letters. Objects are four names by frozen vectors of words,
    the same that the text has, or four vectors of parts of the picture; both are projected to the width of ``x``. The
    paper takes the names of the four surest objects of a detector: give them as a side text, most sure first and with
    semicolons between (``traffic light; person``). Of a text without semicolons (a caption) the first four different
    content words are taken. Unlike the authors' code it has LayerNorm at the end: the statistics of their BatchNorm
    count the padding.
    """

    NAME = "ocsga"
    Config = OCSGAConfig
    GRID, DEPTHS = 1, 1
    config: OCSGAConfig

    def parts(self) -> None:
        """The objects' projection and the co-attention."""
        config = self.config
        if config.object_words:
            if self.words.pretrained is None:
                raise UnsupportedView(f"{config.image_encoder}: objects by name need vectors or word_vectors")
            self.image_encoder: Sight = ObjectWords(config.crops, self.words.pretrained)
            self.levels = self.image_encoder.levels
        self.norm = nn.LayerNorm(self.width)
        if self.levels:
            channels = self.levels[-1][1]
            self.look = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, self.width))
            dropout = config.attention_dropout
            self.fusion = CoAttention(self.width, config.attention_heads, dropout, config.self_attention)

    def after(self, states: Tensor, mask: Tensor, picture: Picture | None) -> Tensor:
        """``LN(x + F)``."""
        if picture is not None:
            objects = picture.levels[-1]
            if not self.config.object_words:
                objects = part_vectors(objects, self.config.crops)[:, 1:]
            there = objects.any(-1) & picture.present[:, None]
            states = states + self.fusion(states, mask, self.look(objects), there)
        fused: Tensor = self.norm(states)
        return fused

    # --- objects ---

    @classmethod
    def eyes(cls, config: Any) -> Sight:
        """What gives the objects; the width of names is known once there are vectors of words (`parts`)."""
        if config.object_words:
            return ObjectWords(config.crops)
        return sight(config.image_encoder, cls.GRID, cls.DEPTHS, config.crops, config.proposals)

    @property
    def reads_captions(self) -> bool:
        """Whether a side text stands for its pictures."""
        return bool(self.config.object_words) or super().reads_captions

    def _shown(self, example: Any) -> Sequence[Image | str]:
        if not self.config.object_words:
            return super()._shown(example)
        text = example.context.get(self.config.object_words, "").strip()
        return (text,) if text else ()


def object_names(text: str) -> list[tuple[str, ...]]:
    """Names of objects, each once, as their words: the parts between semicolons, or the content words of a text."""
    words = lambda part: tuple(part[a:b].lower() for a, b in units(part))
    if ";" in text:
        names = [words(part) for part in text.split(";")]
    else:
        names = [(word,) for word in words(text) if tells(word, COMMON)]
    return [name for name in dict.fromkeys(names) if name]
