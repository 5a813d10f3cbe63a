"""Entity recognition, judged strictly: an entity is right if both its boundaries and its type are.

Protocol: CoNLL entity-level exact match under strict IOB2, micro-averaged; equal to seqeval's
``mode="strict", scheme=IOB2`` (a test asserts it). Spans are compared by character offsets, so words lost on
the way to a model count as misses. A predicted entity that was not found in the text (``start`` is None) is
wrong, and an answer that could not be parsed (None) predicts nothing; both are counted again on their own.
0/0 is 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..tasks.ner import Answer, Entity, Example
from ..tasks.task import DataFault

PROTOCOL = (
    "Entity-level exact match by character offsets, strict IOB2 (boundaries and type), micro-averaged; equal "
    "to seqeval strict. An ungrounded entity is wrong; an unparseable answer predicts nothing. 0/0 is 0; "
    "there are no ties."
)


@dataclass(frozen=True)
class SpanCounts:
    """What the answers got right, by example.

    Attributes:
        types: the types seen in gold or prediction, sorted.
        table: ``[n, types, 3]``: correct, predicted and gold entities of each example by type.
        boundaries: ``[n, 3]``: the same without regard to type.
        counts: ``unparseable`` answers; predicted entities ``ungrounded``, and ``repeated`` within one answer
            (a repeated one is dropped, not charged).
    """

    types: tuple[str, ...]
    table: NDArray[np.int64]
    boundaries: NDArray[np.int64]
    counts: dict[str, int]


def count(examples: Sequence[Example], answers: Sequence[Answer | None]) -> SpanCounts:
    """Compare answers (None: unparseable) with gold. A `DataFault` for an example that has no gold."""
    golds = [_gold(example) for example in examples]
    given = [answer.entities if answer else () for answer in answers]
    placed = [{_spot(e) for e in some if e.start is not None} for some in given]
    unplaced = [{(e.text, e.type) for e in some if e.start is None} for some in given]
    types = sorted({e.type for some in given for e in some} | {kind for gold in golds for *_, kind in gold})
    row = {name: i for i, name in enumerate(types)}
    table = np.zeros((len(examples), len(types), 3), dtype=np.int64)
    boundaries = np.zeros((len(examples), 3), dtype=np.int64)
    for i, (gold, spots, lost) in enumerate(zip(golds, placed, unplaced, strict=True)):
        for column, some in enumerate((gold & spots, spots, gold)):
            for *_, kind in some:
                table[i, row[kind], column] += 1
        for _, kind in lost:
            table[i, row[kind], 1] += 1
        true_places, places = {spot[:2] for spot in gold}, {spot[:2] for spot in spots}
        predicted = len(places) + len({text for text, _ in lost})
        boundaries[i] = len(true_places & places), predicted, len(true_places)
    ungrounded = sum(map(len, unplaced))
    counts = {
        "unparseable": sum(answer is None for answer in answers),
        "ungrounded": ungrounded,
        "repeated": sum(map(len, given)) - sum(map(len, placed)) - ungrounded,
    }
    return SpanCounts(tuple(types), table, boundaries, counts)


def _spot(entity: Entity) -> tuple[int | None, int | None, str]:
    return entity.start, entity.end, entity.type


def _gold(example: Example) -> set[tuple[int | None, int | None, str]]:
    if example.gold is None:
        raise DataFault(f"example {example.id}", "it has no gold entities", "score a labelled split")
    return {_spot(entity) for entity in example.gold.entities}


def ratio(part: ArrayLike, whole: ArrayLike) -> NDArray[np.float64]:
    """``part / whole``, 0 where the whole is 0."""
    part, whole = np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64)
    return np.divide(part, whole, out=np.zeros(np.broadcast(part, whole).shape), where=whole > 0)


def f1(correct: ArrayLike, predicted: ArrayLike, gold: ArrayLike) -> NDArray[np.float64]:
    """Harmonic mean of precision and recall: ``2 * correct / (predicted + gold)``."""
    return ratio(2 * np.asarray(correct), np.asarray(predicted) + np.asarray(gold))


def spans_of_tags(tags: Sequence[str]) -> list[tuple[int, int, str]]:
    """Typed word spans (end exclusive) of IOB2 tags, strictly: only B- opens a span, I- of its type goes on.

    An I- that goes on from nothing (an orphan) is outside.
    """
    spans: list[tuple[int, int, str]] = []
    start, open_type = 0, ""
    for i, tag in enumerate([*tags, "O"]):
        mark, _, tag_type = tag.partition("-")
        if open_type and (mark, tag_type) != ("I", open_type):
            spans.append((start, i, open_type))
            open_type = ""
        if mark == "B":
            start, open_type = i, tag_type
    return spans
