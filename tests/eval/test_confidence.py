"""Recall at a precision and calibration error, against slow plain versions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from magister.eval.confidence import Kept, ece, recall_at_precision, reliability, slots
from magister.tasks.attributes import Answer, Example
from magister.tasks.task import DataFault


def example(gold: dict[str, tuple[str, ...]], name: str = "0") -> Example:
    return Example(id=name, text="x", asked=tuple(gold), gold=Answer(values=gold))


def plainly(scores, right, wanted, precision) -> float:
    """Every threshold tried on every value."""
    best = 0.0
    for threshold in scores:
        kept = [r for s, r in zip(scores, right, strict=True) if s >= threshold]
        if sum(kept) / len(kept) >= precision and wanted:
            best = max(best, sum(kept) / wanted)
    return best


SCORES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5000001, 0.75, 0.9, 1.0])


@given(
    st.lists(st.tuples(SCORES, st.booleans()), max_size=30), st.integers(0, 5), st.sampled_from([0.0, 0.5, 0.8, 0.9, 1])
)
def test_recall_at_precision_is_that_of_trying_every_threshold(said, missed, precision):
    scores, right = [s for s, _ in said], [r for _, r in said]
    wanted = sum(right) + missed
    kept = recall_at_precision(scores, right, wanted, precision)
    assert kept.recall == pytest.approx(plainly(scores, right, wanted, precision))
    if kept.threshold is not None:
        mine = [r for s, r in said if s >= kept.threshold]
        assert kept.precision == pytest.approx(sum(mine) / len(mine))
        assert kept.precision >= precision
        assert kept.recall == pytest.approx(sum(mine) / wanted)


def test_recall_at_precision_by_hand():
    """Ten of eleven right: the wrong one is the fifth, so that 0.9 is only reached with all of them kept."""
    scores = [1 - n / 100 for n in range(11)]
    right = [n != 4 for n in range(11)]
    assert recall_at_precision(scores, right, 20) == Kept(0.5, 10 / 11, pytest.approx(0.9))
    assert recall_at_precision(scores, right, 20, 0.95) == Kept(0.2, 1.0, pytest.approx(0.97))


def test_values_of_one_confidence_are_kept_or_dropped_together():
    assert recall_at_precision([0.5] * 4, [True, True, True, False], 4) == Kept(0.0, 0.0, None)
    assert recall_at_precision([0.5] * 10, [True] * 9 + [False], 10).recall == 0.9


def test_nothing_is_kept_where_nothing_is_said_or_wanted():
    assert recall_at_precision([], [], 3) == recall_at_precision([0.9], [False], 0) == Kept(0.0, 0.0, None)
    with pytest.raises(ValueError, match="no number"):
        recall_at_precision([math.nan], [True], 1)


def ece_plainly(scores, right, bins) -> float:
    total = 0.0
    for n in range(bins):
        low, high = n / bins, (n + 1) / bins
        inside = [i for i, s in enumerate(scores) if low <= s < high or (n == bins - 1 and s == 1)]
        if inside:
            gap = sum(right[i] for i in inside) / len(inside) - sum(scores[i] for i in inside) / len(inside)
            total += len(inside) / len(scores) * abs(gap)
    return total


@given(st.lists(st.tuples(st.integers(0, 64), st.booleans()), min_size=1, max_size=40), st.sampled_from([1, 2, 8]))
def test_ece_is_that_of_sorting_into_bins_by_hand(said, bins):
    """Scores and edges are powers of two, so that no rounding moves a score over an edge."""
    scores, right = [n / 64 for n, _ in said], [r for _, r in said]
    assert ece(scores, right, bins) == pytest.approx(ece_plainly(scores, right, bins))


def test_ece_by_hand():
    assert ece([0.95, 0.95, 0.25], [True, False, False]) == pytest.approx(2 / 3 * 0.45 + 1 / 3 * 0.25)
    assert ece([1.0, 0.0], [True, False]) == 0
    for bad in ([1.2], [-0.1], [math.nan]):
        with pytest.raises(ValueError, match="0 to 1"):
            ece(bad, [True])
    with pytest.raises(ValueError, match="no answer"):
        ece([], [])


def test_a_run_by_attribute_and_averaged():
    """Brand: right and sure, wrong and unsure. Size: absent in gold but said; one value without a confidence."""
    examples = [
        example({"Brand": ("Acme",), "Size": ()}),
        example({"Brand": ("Bolt",), "Size": ("L",)}),
        example({"Brand": ("Cora",)}),
    ]
    answers = [
        Answer(values={"Brand": ("Acme",), "Size": ("S",)}),
        Answer(values={"Brand": ("bolt",), "Size": ("L",)}),
        None,
    ]
    confidences = [{"Brand": 0.9, "Size": 0.4}, {"Brand": 0.3, "Size": None}, {"Brand": 1.0}]
    found = reliability(examples, answers, confidences)
    assert found.by_attribute == {"Brand": Kept(1 / 3, 1.0, 0.9), "Size": Kept(0.0, 0.0, None)}
    assert found.recall == pytest.approx((1 / 3 + 0) / 2)
    assert found.pooled == Kept(1 / 4, 1.0, 0.9)
    assert found.ece == pytest.approx((0.1 + 0.4 + 0.3) / 3)
    assert found.counts == {"slots": 5, "without_confidence": 2, "unparseable": 1}
    assert [s.case for s in slots(examples, answers, confidences)] == ["vc", "nv", "vw", "vc", "vn"]


def test_an_absent_answer_that_is_right_counts_for_calibration_only():
    found = reliability([example({"Size": ()})], [Answer(values={"Size": ()})], [{"Size": 0.75}])
    assert (found.ece, found.by_attribute, found.recall) == (pytest.approx(0.25), {}, 0.0)
    assert reliability([], [], []).ece is None


def test_an_example_without_gold_is_named():
    with pytest.raises(DataFault, match="example 7: it has no gold"):
        reliability([Example(id="7", text="x")], [None], [{}])


def test_the_interval_is_that_of_the_pooled_recall():
    from magister.eval.confidence import interval

    examples = [example({"a": ("x",), "b": ("y",)}, str(n)) for n in range(20)]
    answers = [Answer(values={"a": ("x" if n % 3 else "z",), "b": ("y",)}) for n in range(20)]
    sure = [{"a": 0.9 if n % 3 else 0.95, "b": 0.5} for n in range(20)]
    whole = interval(examples, answers, sure, precision=0.6, resamples=200)
    assert whole.value == reliability(examples, answers, sure, precision=0.6).pooled.recall
    assert 0 <= whole.low < whole.value <= whole.high <= 1
    assert interval(examples, answers, sure, precision=0.6, resamples=200) == whole
