"""Tagging head: a BIO tag for every word, by a linear layer and a CRF (Lample et al., NAACL 2016)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...tasks import ner
from ...tasks.task import DataFault
from ..collate import Collated, Found, Item, Layout, Reading, Row, Text, owner, pad
from ..fusion.copies import COMMON, CopyReader, copies, tells
from ..student import View
from ..units import lay, unit_states
from .crf import CRF
from .tags import Tags

#: Fills tags behind the last word; never read, since the mask covers it.
NO_TAG = 0


class TaggingHead(nn.Module):
    """Emissions and a CRF over words.

    Attributes:
        tags: BIO over the types in the schema's order.
        crf: its `CRF`; ``crf.marginals(emissions, mask)`` are the soft labels that objectives compare.
        copies: lets each word read its repetitions in the side text, or None.
    """

    legal: Tensor

    def __init__(self, hidden: int, labels: Sequence[str], dropout: float, copies: bool = False) -> None:
        super().__init__()
        self.copies = CopyReader(hidden) if copies else None
        self.tags = Tags(tuple(labels))
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(hidden, len(self.tags))
        self.crf = CRF(len(self.tags))
        self.register_buffer("legal", self.tags.legal(), persistent=False)

    def collate(self, items: Sequence[Item], layout: Layout, view: View, training: bool) -> Collated:
        """Rows of some texts, where to find the state of each word, and the gold tags of those that have gold."""
        laid = lay(layout, items, view)
        tensors, counts = laid.tensors, laid.counts
        tags: list[list[int]] = []
        repeated: list[list[list[int]]] = []
        for item, text, own in zip(items, laid.texts, laid.rows, strict=True):
            if self.copies is not None:
                repeated.append(copies_of(text, item.example.text, own))
            gold, remarks = tags_of(item.example, text.spans, self.tags)
            tags.append(gold)
            counts += remarks
        tensors["tags"] = pad(tags, NO_TAG)
        if any(positions for words in repeated for positions in words):
            tensors["copy_at"], tensors["copy_mask"] = pad_copies(repeated)
        tensors["gold"] = torch.tensor([item.example.gold is not None for item in items])
        tensors["units"] = tensors["word_mask"].sum()[None]
        return tensors, counts

    def forward(self, reading: Reading, tensors: dict[str, Tensor]) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Loss over the texts with gold, and ``emissions [B, W, K]`` with ``word_mask [B, W]``."""
        return self.score(reading.states(tensors), tensors)

    def score(self, states: Tensor, tensors: dict[str, Tensor]) -> tuple[Tensor | None, dict[str, Tensor]]:
        """What `forward` gives, of the states ``[R, T, d]`` of the rows."""
        words = unit_states(states, tensors)
        if self.copies is not None and "copy_at" in tensors:
            repeated = states[tensors["word_row"].unsqueeze(-1), tensors["copy_at"]]
            words = self.copies(words, repeated, tensors["copy_mask"])
        return self.tag(words, tensors)

    def tag(self, words: Tensor, tensors: dict[str, Tensor]) -> tuple[Tensor | None, dict[str, Tensor]]:
        """What `forward` gives, of the states ``[B, W, d]`` of the words."""
        emissions = self.emissions(words)
        mask, gold = tensors["word_mask"], tensors["gold"]
        scores = {"emissions": emissions, "word_mask": mask, "states": words}
        if not gold.any():
            return None, scores
        if not gold.all():
            return self.loss(emissions[gold], tensors["tags"][gold], mask[gold]), scores
        return self.loss(emissions, tensors["tags"], mask), scores

    def answers(
        self, items: Sequence[Item], layout: Layout | None, scores: dict[str, Tensor], tensors: dict[str, Tensor]
    ) -> list[Found]:
        """The entities of each text with their `confidence`."""
        emissions, mask = scores["emissions"], scores["word_mask"]
        decoded = self.decode(emissions, mask)
        found: list[Found] = []
        for item, words, sure in zip(items, decoded, self.confidence(emissions, mask, decoded), strict=True):
            text, spans = item.example.text, ner.word_spans(item.example)
            places = [(spans[first][0], spans[last - 1][1], kind) for first, last, kind in words]
            entities = [ner.Entity(text=text[a:b], type=kind, start=a, end=b) for a, b, kind in places]
            found.append(list(zip(entities, sure, strict=True)))
        return found

    def emissions(self, words: Tensor) -> Tensor:
        """Scores ``[B, W, K]`` in fp32 of word states ``[B, W, d]``."""
        return self.linear(self.dropout(words)).float()

    def loss(self, emissions: Tensor, tags: Tensor, mask: Tensor) -> Tensor:
        """Negative log likelihood per word: ``[B, W, K]``, ``[B, W]``, ``[B, W]`` to a number."""
        return self.crf.nll(emissions, tags, mask).sum() / mask.sum()

    @torch.no_grad()
    def decode(self, emissions: Tensor, mask: Tensor) -> list[list[tuple[int, int, str]]]:
        """Typed spans of words ``(first, last + 1, type)`` of each text, by Viterbi under the rules of BIO."""
        return [self.tags.decode(path) for path in self.crf.viterbi(emissions, mask, self.legal)]

    @torch.no_grad()
    def confidence(self, emissions: Tensor, mask: Tensor, spans: list[list[tuple[int, int, str]]]) -> list[list[float]]:
        """For each span the smallest posterior among its words' tags."""
        posterior = self.crf.marginals(emissions, mask).exp().cpu()
        return [self.tags.sure(row, of_text) for row, of_text in zip(posterior, spans, strict=True)]


def copies_of(text: Text, written: str, rows: Sequence[Row]) -> list[list[int]]:
    """For each word the positions, in the row that it is read in, of its repetitions in the side text."""
    alone = [tells(written[start:end], COMMON) for start, end in text.spans]
    found: list[list[int]] = [[] for _ in text.pieces]
    for number, row in enumerate(rows):
        side = [row.ids[position] for position in row.sides]
        inside = slice(row.units.start, row.units.stop)
        for word, position in copies(text.pieces[inside], side, alone[inside]):
            unit = row.units.start + word
            if len(rows) == 1 or owner(rows, unit) == number:
                found[unit].append(row.sides.start + position)
    return found


def pad_copies(found: Sequence[Sequence[Sequence[int]]]) -> tuple[Tensor, Tensor]:
    """Positions of each word's copies ``[B, W, C]``, and which of them there are."""
    words = max(len(of_text) for of_text in found)
    most = max(len(positions) for of_text in found for positions in of_text)
    at = torch.zeros(len(found), words, most, dtype=torch.long)
    mask = torch.zeros(len(found), words, most, dtype=torch.bool)
    for text, of_text in enumerate(found):
        for word, positions in enumerate(of_text):
            at[text, word, : len(positions)] = torch.tensor(positions, dtype=torch.long)
            mask[text, word, : len(positions)] = True
    return at, mask


def tags_of(example: ner.Example, spans: Sequence[tuple[int, int]], tags: Tags) -> tuple[list[int], Counter[str]]:
    """The gold tag of each word, and what BIO over words could not hold.

    An entity that begins or ends inside a word takes the whole word (counted ``entities_widened_to_words``); one that
    overlaps an earlier one is left out (counted ``entities_overlapping``). A type that the tag set has not is a
    `DataFault`.
    """
    found, counts = [0] * len(spans), Counter[str]()
    for entity in example.gold.entities if example.gold else ():
        if entity.type not in tags.labels:
            known = ", ".join(tags.labels)
            raise DataFault(f"example {example.id}", f"unknown entity type {entity.type!r}", f"there are: {known}")
        assert entity.start is not None  # `ner.Example` sees to both
        assert entity.end is not None
        inside = ner.words_inside(spans, entity.start, entity.end)
        if not inside or any(found[w] for w in inside):
            counts["entities_overlapping" if inside else "entities_without_word"] += 1
            continue
        if (spans[inside[0]][0], spans[inside[-1]][1]) != (entity.start, entity.end):
            counts["entities_widened_to_words"] += 1
        found[inside[0] : inside[-1] + 1] = tags.of_span(len(inside), entity.type)
    return found, counts
