"""MEGA: text and objects aligned by meaning and by graph structure (Zheng et al., ACM MM 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from ...tasks import ner
from ..collate import Text, shape_count
from ..encoders.text import UnsupportedBackbone
from ..fused import Fused, FusedConfig, Fusion
from ..fusion.alignment import Edges, align, nearest_neighbours
from ..fusion.copies import COMMON, tells
from ..fusion.gated import Attention
from ..settings import Clash
from ..student import Batch, View
from ..system import Picture
from ..units import unit_states

#: How the name of a spaCy model begins, as a parse.
SPACY = "spacy:"


class MEGAConfig(FusedConfig):
    """What a `MEGA` is made of.

    Attributes:
        semantic: whether objects attend to words.
        structural: whether objects are aligned with words by their places in their graphs.
        parse: where the graph of words is from: ``chain`` (`chain`), or the dependencies of ``spacy:MODEL``.
        neighbours: each part of the picture is linked with so many others, the most alike.
    """

    tasks = ("relations",)
    #: Nine objects with the whole picture; ten as published.
    crops: ClassVar[int] = 8

    semantic: bool = True
    structural: bool = True
    parse: str = "chain"
    neighbours: int = Field(2, ge=1)

    @field_validator("parse")
    @classmethod
    def _parse_is_known(cls, parse: str) -> str:
        if parse != "chain" and not (parse.startswith(SPACY) and parse != SPACY):
            raise ValueError("say chain, or spacy:MODEL for a parser's dependencies")
        return parse

    def clashes(self, recipe: Any) -> Iterator[Clash]:
        """Nothing that is to be aligned."""
        yield from super().clashes(recipe)
        if not self.semantic and not self.structural:
            said = "without both alignments nothing of the picture is left: images: false"
            yield ("semantic", "structural"), said


class MEGA(Fused):
    """Objects ``o`` of the picture and words ``h`` of the text, aligned twice; a pair is judged beside what they say::

        H' = W_h H   O' = W_o LN(O)
        sem = sigmoid(softmax((O' W_q)(H' W_k)^T / sqrt(2 d)) (H' W_v))        semantic alignment
        str = G H'                                                            structural alignment
        v = sum_o W_v [sem_o; str_o]          logits = W drop([h_head; h_tail; v])

    ``G [O, W]`` (`fusion.alignment`) weighs for each object the five words most like it in structure. Text states: any
    transformers encoder. Objects: the frozen image encoder's vectors of the whole picture and eight parts of it.

    Unlike the paper, which takes objects and their relations from a scene graph detector, the edges among objects are
    those of like parts (parts that overlap are alike), and without a parser the words' graph is a `chain`. Nodes of the
    text are words and marks, not sub-tokens: parser and sub-tokens cannot drift apart. Of the release's errors none is
    kept: ``G`` is a pure function (there it grows with each access of an example), ``[O, W]`` by construction (there a
    reshape stands for a transpose), and its landmarks are fixed. The release's layer over ``[e; v]`` before the last
    one is part of it: two linear layers are one. Without a picture ``v`` is 0: the text-only model.

    Ablations: ``semantic: false``, ``structural: false``.
    """

    NAME = "mega"
    Config = MEGAConfig
    GRID, DEPTHS = 1, 1
    config: MEGAConfig

    def parts(self) -> None:
        """The projections of words and objects, the attention, and the width of ``v``."""
        self._parsed: dict[tuple[str, ...], list[tuple[int, int]]] = {}
        if not self.levels:
            return
        width = 2 * self.encoder.hidden
        self.beside = width
        self.of_words = nn.Linear(self.encoder.hidden, width)
        kinds = self.config.semantic + self.config.structural
        self.join = nn.Linear(kinds * width, width)
        if self.config.semantic:
            channels = self.levels[-1][1]
            self.of_objects = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, width))
            self.attend = Attention(width, width, width)

    # --- the graphs ---

    def collate(self, examples: Sequence[Any], view: View | None = None) -> Batch:
        """With ``alignment [B, O, W]`` where an example has a picture: ``G``, 0 for those that have none."""
        batch = super().collate(examples, view)
        tensors = batch.tensors
        if self.config.structural and "image.present" in tensors:
            assert self.levels is not None
            objects = tensors[f"image.level{len(self.levels) - 1}"]
            found = torch.zeros(len(examples), objects.shape[1], tensors["word_mask"].shape[1])
            for row in tensors["image.present"].nonzero()[:, 0].tolist():
                seen = nearest_neighbours(objects[row].double().numpy(), self.config.neighbours)
                words = self.graph(examples[row])
                found[row, :, : len(words)] = torch.from_numpy(align(seen, words)).float()
            tensors["alignment"] = found
        return batch

    def graph(self, example: Any) -> Edges:
        """The graph ``[W, W]`` of a text's units: its words and the marks around its mentions."""
        text = self.layout.read(example)
        if self.config.parse == "chain":
            return chain(text, example.text)
        words = tuple(example.text[a:b] for a, b in ner.word_spans(example))
        if words not in self._parsed:  # once, not once an epoch
            self._parsed[words] = self._heads(words)
        return among(text, self._parsed[words])

    def _heads(self, words: Sequence[str]) -> list[tuple[int, int]]:
        """Each word and its head, by the parser; it reads our words, so that none has to be matched with its own."""
        return [(token.i, token.head.i) for token in self._parser(words)]

    @cached_property
    def _parser(self) -> Any:
        name = self.config.parse.removeprefix(SPACY)
        try:
            import spacy

            model = spacy.load(name)
        except (ImportError, OSError) as error:
            raise UnsupportedBackbone(
                f"parse: {self.config.parse} cannot be loaded ({error}): install spacy and its model, or say chain"
            ) from None
        return lambda words: model(spacy.tokens.Doc(model.vocab, words=list(words)))

    # --- the fusion ---

    def fuse(self, tensors: dict[str, Tensor], picture: Picture | None) -> Fusion:
        """The text's states and ``v [B, 2 d]``."""
        states = self.encode(tensors)
        if not self.beside:
            return Fusion(states)
        if picture is None:
            return Fusion(states, beside=states.new_zeros(len(tensors["item_row"]), self.beside))
        first = tensors["item_row"]
        seen = self.aligned(unit_states(states, tensors), tensors, picture.levels[-1][first])
        # Where there is no picture, the sum is taken away with its biases.
        return Fusion(states, beside=seen * picture.present[first, None])

    def aligned(self, words: Tensor, tensors: dict[str, Tensor], objects: Tensor) -> Tensor:
        """``v [B, 2 d]`` of states ``[B, W, d]`` and objects ``[B, O, c]``."""
        words = self.of_words(words)
        kinds = []
        if self.config.semantic:
            weights, values = self.attend(self.of_objects(objects), words, tensors["word_mask"])
            kinds.append((weights.to(values.dtype) @ values).sigmoid())
        if self.config.structural:
            kinds.append(tensors["alignment"].to(words.dtype) @ words)
        there = objects.any(-1, keepdim=True)  # a slot that holds nothing says nothing
        seen: Tensor = (self.join(torch.cat(kinds, -1)) * there).sum(1)
        return seen


def chain(text: Text, written: str) -> Edges:
    """A light parse ``[W, W]``: each content word is linked with the next, other words hang on the content word behind
    them (the last of the text, if none is).
    """
    marks = _marks(text)
    words = [unit for unit in range(len(text.pieces)) if unit not in marks]
    tell = [tells(written[a:b], COMMON) for a, b in (text.spans[unit] for unit in words)]
    content = [word for word, told in enumerate(tell) if told] or list(range(len(words)))
    edges = list(pairwise(content))
    for word in range(len(words)):
        if word not in content:
            edges.append((word, next((c for c in content if c > word), content[-1])))
    return among(text, edges)


def among(text: Text, edges: Sequence[tuple[int, int]]) -> Edges:
    """The graph ``[W, W]`` of a text's units, of edges between its words; a mark hangs on the word that it opens or
    closes.
    """
    marks = _marks(text)
    units = [unit for unit in range(len(text.pieces)) if unit not in marks]
    found = np.zeros((len(text.pieces),) * 2, dtype=bool)
    for a, b in edges:
        found[units[a], units[b]] = True
    for mark in marks:
        opens = (text.shapes[mark] - shape_count()) % 2 == 0
        found[mark, min(u for u in units if u > mark) if opens else max(u for u in units if u < mark)] = True
    found |= found.T
    np.fill_diagonal(found, False)
    return found


def _marks(text: Text) -> frozenset[int]:
    return frozenset(unit for unit, shape in enumerate(text.shapes) if shape >= shape_count())
