"""What confidences are worth: recall at a given precision, and how far they are from the share that is right.

Recall at precision P (Khandelwal et al., 2023, MXT, use P = 0.9): of all thresholds on the confidence at which the
values kept are right in a share of at least P, the largest share of the gold values that is found. Ties: values of
one confidence are kept or dropped together. ECE: expected calibration error over bins of equal width (Naeini et al.,
2015; Guo et al., 2017, equation 3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..tasks.attributes import Answer, Example
from ..tasks.task import DataFault
from .attributes import case, values
from .bootstrap import Interval, ends

#: Bins of the ECE: ``[0, 0.1), [0.1, 0.2), ... [0.9, 1]``.
BINS = 10


@dataclass(frozen=True)
class Slot:
    """One attribute of one example that gold mentions.

    Attributes:
        attribute: its name.
        confidence: of what was answered (a value or absence), or None.
        case: of the five-way bookkeeping (`eval.attributes`); ``vn`` with ``nothing`` said at all is one too.
    """

    attribute: str
    confidence: float | None
    case: str

    @property
    def right(self) -> bool:
        """Whether the answer is."""
        return self.case in ("nn", "vc")

    @property
    def said(self) -> bool:
        """Whether a value was given."""
        return self.case in ("nv", "vc", "vw")

    @property
    def wanted(self) -> bool:
        """Whether gold has a value."""
        return self.case in ("vn", "vc", "vw")


@dataclass(frozen=True)
class Kept:
    """What is kept at the best threshold: confidences of at least ``threshold`` (None: nothing can be kept)."""

    recall: float
    precision: float
    threshold: float | None


@dataclass(frozen=True)
class Reliability:
    """What a run's confidences are worth.

    Attributes:
        by_attribute: what is kept of each attribute that has gold values, each with its own threshold.
        recall: the mean of their recalls.
        pooled: what is kept with one threshold for all.
        ece: expected calibration error over all slots with a confidence, absent ones too; None where there are none.
        counts: ``slots``, of these ``without_confidence`` (their values are never kept), ``unparseable`` answers.
    """

    by_attribute: dict[str, Kept]
    recall: float
    pooled: Kept
    ece: float | None
    counts: dict[str, int]


def slots(
    examples: Sequence[Example],
    answers: Sequence[Answer | None],
    confidences: Sequence[Mapping[str, float | None]],
) -> list[Slot]:
    """The slots of examples with gold, in order; an unparseable answer (None) says that all are absent, unsurely."""
    found = []
    for example, answer, sure in zip(examples, answers, confidences, strict=True):
        if example.gold is None:
            raise DataFault(f"example {example.id}", "it has no gold values", "score a labelled split")
        for name in example.gold.values:
            what = case(values(example.gold, name), values(answer, name))
            found.append(Slot(name, None if answer is None else sure.get(name), what))
    return found


def reliability(
    examples: Sequence[Example],
    answers: Sequence[Answer | None],
    confidences: Sequence[Mapping[str, float | None]],
    precision: float = 0.9,
) -> Reliability:
    """Recall at a precision, by attribute and over all, and the calibration error."""
    all_slots = slots(examples, answers, confidences)
    names = dict.fromkeys(slot.attribute for slot in all_slots if slot.wanted)
    by_attribute = {name: _kept([s for s in all_slots if s.attribute == name], precision) for name in names}
    weighed = [slot for slot in all_slots if slot.confidence is not None]
    return Reliability(
        by_attribute=by_attribute,
        recall=float(np.mean([kept.recall for kept in by_attribute.values()])) if by_attribute else 0.0,
        pooled=_kept(all_slots, precision),
        ece=ece([s.confidence or 0.0 for s in weighed], [s.right for s in weighed]) if weighed else None,
        counts={
            "slots": len(all_slots),
            "without_confidence": len(all_slots) - len(weighed),
            "unparseable": sum(answer is None for answer in answers),
        },
    )


def _kept(some: Sequence[Slot], precision: float) -> Kept:
    said = [(slot.confidence, slot.right) for slot in some if slot.said and slot.confidence is not None]
    wanted = sum(slot.wanted for slot in some)
    return recall_at_precision([c for c, _ in said], [right for _, right in said], wanted, precision)


def recall_at_precision(
    confidences: Sequence[float], right: Sequence[bool], wanted: int, precision: float = 0.9
) -> Kept:
    """The largest recall at which the values kept have at least this precision.

    Args:
        confidences, right: of each value given.
        wanted: how many gold values there are; 0 gives a recall of 0.

    Of several thresholds with the same recall the highest is named: it has the best precision. A `ValueError` for a
    confidence that is no number.
    """
    scores, hits = np.asarray(confidences, dtype=float), np.asarray(right, dtype=bool)
    if not np.isfinite(scores).all():
        raise ValueError("a confidence is no number: leave out values without one")
    order = np.argsort(-scores, kind="stable")
    scores, found = scores[order], np.cumsum(hits[order])
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: len(scores)])  # of each run of ties
    shares = found[last] / (last + 1)
    good = [at for at, share in zip(last, shares, strict=True) if share >= precision and found[at]]
    if not good or not wanted:
        return Kept(0.0, 0.0, None)
    best = max(good, key=lambda at: (found[at], -at))
    return Kept(float(found[best] / wanted), float(found[best] / (best + 1)), float(scores[best]))


def ece(confidences: Sequence[float], right: Sequence[bool], bins: int = BINS) -> float:
    """Expected calibration error: mean over answers of their bin's |share that is right - mean confidence|."""
    scores, hits = np.asarray(confidences, dtype=float), np.asarray(right, dtype=float)
    if not len(scores):
        raise ValueError("there is no answer with a confidence")
    if not ((scores >= 0) & (scores <= 1)).all():
        raise ValueError("confidences are from 0 to 1")
    place = np.minimum((scores * bins).astype(int), bins - 1)
    gaps = np.bincount(place, weights=hits, minlength=bins) - np.bincount(place, weights=scores, minlength=bins)
    return float(np.abs(gaps).sum() / len(scores))


def interval(
    examples: Sequence[Example],
    answers: Sequence[Answer | None],
    confidences: Sequence[Mapping[str, float | None]],
    precision: float = 0.9,
    resamples: int = 500,
    seed: int = 0,
) -> Interval:
    """Recall at a precision with one threshold for all attributes, and its percentile bootstrap interval over examples.

    Each resample finds its own threshold, on the examples that it is judged by, as the metric itself does.
    """
    by_example = [slots([e], [a], [c]) for e, a, c in zip(examples, answers, confidences, strict=True)]
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(resamples):
        picked = rng.integers(len(by_example), size=len(by_example))
        drawn.append(_kept([slot for at in picked for slot in by_example[at]], precision).recall)
    whole = _kept([slot for own in by_example for slot in own], precision).recall
    return Interval(whole, *ends(drawn))
