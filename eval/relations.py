"""Relation extraction, judged without the label that says "no relation".

Protocol of a given pair: micro-averaged precision, recall and F1 over the labels without ``None``, as MNRE's systems
are judged (Zheng et al. 2021, "Multimodal Relation Extraction with Efficient Graph Alignment", section 5): a pair is
predicted if it is given a relation, gold if it has one, correct if the two are the same. Equal to scikit-learn's
``precision_recall_fscore_support(labels=<all but None>, average="micro")`` (a test asserts it). Accuracy is over all
pairs, ``None`` included.

Protocol of the triples of a text (joint extraction): a triple is right if both mentions' boundaries, by character
offsets, and the relation and its direction are; mentions' types are not compared, since an answer need not state them.
A triple with a mention that was not found in the text is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..tasks.relations import Answer, Example, Triple
from ..tasks.task import DataFault

PROTOCOL_PAIRS = (
    "Micro-averaged over the relations without {none}, one label a given pair; equal to scikit-learn's micro average "
    "over those labels. Accuracy counts {none} as a label. An unparseable answer predicts nothing and is wrong. "
    "0/0 is 0; there are no ties."
)
PROTOCOL_TRIPLES = (
    "Strict triple F1, micro-averaged over texts: boundaries of head and tail by character offsets, relation and "
    "direction; mentions' types are not compared, {none} is no triple. A triple with an ungrounded mention is wrong, "
    "a repeated one counts once; an unparseable answer predicts nothing. 0/0 is 0; there are no ties."
)

#: What tells one triple from another: offsets of the head, relation, offsets of the tail.
Spot = tuple[tuple[int | None, int | None], str, tuple[int | None, int | None]]


@dataclass(frozen=True)
class RelationCounts:
    """What the answers got right, by example.

    Attributes:
        joint: whether triples were asked, not the relation of a given pair.
        labels: the relations seen in gold or prediction, without ``none``, sorted.
        table: ``[n, labels, 3]``: correct, predicted and gold relations of each example by label.
        right: ``[n]``: 1 where the label of the pair (or the whole set of triples) is right, ``none`` included.
        counts: ``unparseable`` answers; predicted triples ``ungrounded``, and ``repeated`` within one answer.
    """

    joint: bool
    labels: tuple[str, ...]
    table: NDArray[np.int64]
    right: NDArray[np.int64]
    counts: dict[str, int]

    @property
    def protocol(self) -> str:
        """How it was judged, in words, but for the name of ``none``."""
        return PROTOCOL_TRIPLES if self.joint else PROTOCOL_PAIRS


def count(examples: Sequence[Example], answers: Sequence[Answer | None], none: str = "None") -> RelationCounts:
    """Compare answers (None: unparseable) with gold.

    Raises:
        DataFault: an example without gold, or a set in which some examples give a pair and others do not.
    """
    for example in examples:
        if example.gold is None:
            raise DataFault(f"example {example.id}", "it has no gold relation", "score a labelled split")
        if (example.pair is None) != (examples[0].pair is None):
            raise DataFault(f"example {example.id}", "pairs and whole texts stand in one set", "score them apart")
    joint = bool(examples) and examples[0].pair is None
    count_one = _triples if joint else _label
    golds = [count_one(example.gold, none) for example in examples]
    given = [count_one(answer, none) for answer in answers]
    labels = sorted({label for some in (*golds, *given) for _, label, _ in some[0]})
    row = {label: i for i, label in enumerate(labels)}
    table = np.zeros((len(examples), len(labels), 3), dtype=np.int64)
    right = np.zeros(len(examples), dtype=np.int64)
    counts = {"unparseable": sum(answer is None for answer in answers)}
    for i, ((gold, *_), (said, *_), answer) in enumerate(zip(golds, given, answers, strict=True)):
        for column, some in enumerate((gold & said, said, gold)):
            for _, label, _ in some:
                table[i, row[label], column] += 1
        right[i] = answer is not None and gold == said and (joint or answer.relation is not None)
    if joint:
        counts |= {"ungrounded": sum(some[1] for some in given), "repeated": sum(some[2] for some in given)}
    return RelationCounts(joint, tuple(labels), table, right, counts)


def agreement(example: Example, answer: Answer, none: str = "None") -> float:
    """How far one answer says what gold says, 0 to 1: right or wrong for a pair, triple F1 for a text (1 if both are
    empty)."""
    counted = count([example], [answer], none)
    if not counted.joint:
        return float(counted.right[0])
    right, said, gold = counted.table[0].sum(axis=0).tolist()
    return 2 * right / (said + gold) if said + gold else 1.0


_NOWHERE = (None, None)


def _label(answer: Answer | None, none: str) -> tuple[set[Spot], int, int]:
    """A pair's relation as the only triple of its set; ``none`` and no answer as an empty one."""
    label = answer.relation if answer else None
    return ({(_NOWHERE, label, _NOWHERE)} if label not in (None, none) else set()), 0, 0


def _triples(answer: Answer | None, none: str) -> tuple[set[Spot], int, int]:
    """The set of triples; how many have a mention that was not found, and how many are repeated.

    An ungrounded triple is kept apart from all others by its number, so that it is predicted and never right.
    """
    spots: set[Spot] = set()
    texts: set[tuple[str, str, str]] = set()
    repeated = 0
    for triple in answer.triples if answer else ():
        if triple.relation == none:
            continue
        before = len(spots) + len(texts)
        if _is_grounded(triple):
            head, tail = triple.head, triple.tail
            spots.add(((head.start, head.end), triple.relation, (tail.start, tail.end)))
        else:
            texts.add((triple.head.text, triple.relation, triple.tail.text))
        repeated += len(spots) + len(texts) == before
    lost: set[Spot] = {((-1 - n, None), label, _NOWHERE) for n, (_, label, _) in enumerate(sorted(texts))}
    return spots | lost, len(texts), repeated


def _is_grounded(triple: Triple) -> bool:
    return triple.head.start is not None and triple.tail.start is not None
