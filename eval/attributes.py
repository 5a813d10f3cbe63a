"""Attribute values, judged slot by slot with the five-way bookkeeping of the field's LLM papers.

A slot is one attribute that an example's gold mentions, absent ones included. Each slot is one of:
NN both absent, NV only predicted, VN only in gold, VC predicted and right, VW predicted and wrong. Then

    precision = VC / (NV + VC + VW),  recall = VC / (VN + VC + VW).

Micro pools the slots; macro is the mean over (category, attribute) pairs, those with no value in gold and
none predicted left out. Source: Brinkmann et al. (2023), ExtractGPT, section 4, and its evaluation code.

Which attributes have a value at all, whichever it is, is attribute F1: micro F1 of VC + VW found rightly, NV found
in vain and VN missed (Zhu et al., EMNLP 2020, on MEPAVE).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Indel

from ..tasks.attributes import Answer, Example
from ..tasks.task import DataFault

#: What a value costs that is predicted where gold says nothing about the attribute: nothing (as in the
#: published figures), or as much as a value where gold says "absent".
OpenSlots = Literal["skip", "penalise"]

#: The five cases, in the order of `AttributeCounts.table`.
CASES = ("nn", "nv", "vn", "vc", "vw")

#: Sums that are kept by example beside the five cases, in the order of `AttributeCounts.extras`.
EXTRAS = ("lenient", "similarity", "leaves", "seen", "seen_correct", "unseen", "unseen_correct")

_NULLS = frozenset({"", "n/a"})


def protocol(open_slots: OpenSlots) -> str:
    """The protocol in words, for a report."""
    charge = "cost nothing (skip)" if open_slots == "skip" else "are charged as NV (penalise)"
    return (
        "Five-way bookkeeping NN/NV/VN/VC/VW over the annotated (example, attribute) slots; values predicted "
        f"for attributes that gold does not mention {charge}. Exact match, case-sensitive after strip; a "
        "slot is right if every value predicted equals a gold alternative; an unparseable answer leaves "
        "every slot absent. Macro: mean over (category, attribute). strict: right slots among those with a "
        "gold value; lenient (ImplicitAVE): a gold value, lower-cased, is a substring of the lower-cased "
        "output. similarity (after NuExtract): mean indel similarity over slots. 0/0 is 0; there are no ties."
    )


@dataclass(frozen=True)
class AttributeCounts:
    """What the answers got right, by example.

    Attributes:
        pairs: the (category, attribute) pairs seen, sorted.
        table: ``[n, pairs, 5]``: slots of each example by pair and case (`CASES`).
        extras: ``[n, 7]``: sums of each example (`EXTRAS`): slots right leniently; similarity and the slots
            behind it; slots whose gold value training had (or had not) for the pair, and those right.
        counts: ``unparseable`` answers; slots answered with ``several_values``; ``open_slot_values``:
            attributes answered that gold does not mention; ``not_in_text``: values that are not in the text.
    """

    pairs: tuple[tuple[str, str], ...]
    table: NDArray[np.int64]
    extras: NDArray[np.float64]
    counts: dict[str, int]


def values(answer: Answer | None, attribute: str) -> tuple[str, ...]:
    """The values given for an attribute, stripped, each once; empty, ``n/a`` and a missing key are absent."""
    given = answer.values.get(attribute, ()) if answer else ()
    stripped = (value.strip() for value in given)
    return tuple(dict.fromkeys(value for value in stripped if value.lower() not in _NULLS))


def case(gold: Sequence[str], predicted: Sequence[str]) -> str:
    """Which of the five cases a slot is, given the gold alternatives and the values predicted."""
    if not predicted:
        return "vn" if gold else "nn"
    if not gold:
        return "nv"
    return "vc" if set(predicted) <= set(gold) else "vw"


def similarity(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """Likeness of a slot's values, 0 to 1: indel similarity to the nearest gold one, mean over the predicted.

    1 where both are absent, 0 where one is. Source: NuExtract's evaluation, for a tree of one level.
    """
    if not gold or not predicted:
        return float(not gold and not predicted)
    return float(np.mean([max(Indel.normalized_similarity(p, g) for g in gold) for p in predicted]))


def training_values(train: Iterable[Example]) -> set[tuple[str, str, str]]:
    """Every (category, attribute, value) of the training gold."""
    return {(e.category, name, v) for e in train if e.gold for name in e.gold.values for v in values(e.gold, name)}


def count(
    examples: Sequence[Example],
    answers: Sequence[Answer | None],
    open_slots: OpenSlots = "skip",
    train: Sequence[Example] = (),
    outputs: Sequence[str] | None = None,
) -> AttributeCounts:
    """Compare answers (None: unparseable) with gold.

    Args:
        examples: with gold; a `DataFault` names one that has none.
        answers: one an example.
        open_slots: what predictions cost for attributes that gold does not mention.
        train: training examples, for the recall of values seen and unseen there.
        outputs: what was said before parsing, for the lenient metric; by default the predicted values. Only
            for data of one slot an example (else a `ValueError`): what was said of which cannot be told.
    """
    slots = [_slots(e, a, open_slots) for e, a in zip(examples, answers, strict=True)]
    for example, mine in zip(examples, slots, strict=True):
        if outputs is not None and len(mine) != 1:
            raise ValueError(f"example {example.id}: outputs need one slot each, here {len(mine)}")
    pairs = sorted({(e.category, name) for e, mine in zip(examples, slots, strict=True) for name in mine})
    column = {pair: i for i, pair in enumerate(pairs)}
    known = training_values(train)
    table = np.zeros((len(examples), len(pairs), len(CASES)), dtype=np.int64)
    extras = np.zeros((len(examples), len(EXTRAS)))
    counts = dict.fromkeys(("unparseable", "several_values", "open_slot_values", "not_in_text"), 0)
    for i, (example, answer) in enumerate(zip(examples, answers, strict=True)):
        for name, (gold, predicted) in slots[i].items():
            what = case(gold, predicted)
            table[i, column[example.category, name], CASES.index(what)] += 1
            said = outputs[i] if outputs is not None else "\n".join(predicted)
            seen = any((example.category, name, value) in known for value in gold)
            extras[i] += _extras(gold, predicted, what == "vc", said, seen)
            counts["several_values"] += len(predicted) > 1
        _tally(counts, example, answer)
    return AttributeCounts(tuple(pairs), table, extras, counts)


def _slots(
    example: Example, answer: Answer | None, open_slots: OpenSlots
) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Gold alternatives and predicted values by attribute."""
    if example.gold is None:
        raise DataFault(f"example {example.id}", "it has no gold values", "score a labelled split")
    names = list(example.gold.values)
    if answer and open_slots == "penalise":
        names += [name for name in answer.values if name not in example.gold.values and values(answer, name)]
    return {name: (values(example.gold, name), values(answer, name)) for name in names}


def _extras(gold: Sequence[str], predicted: Sequence[str], right: bool, said: str, seen: bool) -> list[float]:
    """One slot's contribution to `EXTRAS`."""
    lenient = any(value.lower() in said.lower() for value in gold)
    seen, unseen = bool(gold) and seen, bool(gold) and not seen
    return [lenient, similarity(gold, predicted), 1, seen, seen and right, unseen, unseen and right]


def _tally(counts: dict[str, int], example: Example, answer: Answer | None) -> None:
    """Count what is remarkable about one answer."""
    if answer is None:
        counts["unparseable"] += 1
        return
    annotated = example.gold.values if example.gold else {}
    for name in answer.values:
        given = values(answer, name)
        counts["open_slot_values"] += bool(given) and name not in annotated
        counts["not_in_text"] += sum(value not in example.text for value in given)
