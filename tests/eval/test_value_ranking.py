"""Ranks of gold values among scored ones, against sorting by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from magister.eval.value_ranking import measure, rank
from magister.tasks.attributes import Answer, Example
from magister.tasks.task import DataFault


def product(id: str, **gold: tuple[str, ...]) -> Example:
    return Example(id=id, text="text", gold=Answer(values=dict(gold)))


def test_hand_worked() -> None:
    examples = [product("a", brand=("B",), colour=("red",)), product("b", brand=()), product("c", brand=("Z",))]
    scored = [
        {"brand": {"A": 0.9, "B": 0.5, "C": 0.5}, "colour": {"red": 0.2, "blue": 0.1}},
        {"brand": {"A": 0.3, "": 0.4}},
        {"brand": {"A": 0.3}},
    ]
    found = measure(examples, scored)
    assert found["slots"] == 4
    assert found["unranked"] == 1
    assert found["hits@1"] == found["hits@1_pessimistic"] == pytest.approx(2 / 4)
    assert found["hits@5"] == pytest.approx(3 / 4)
    assert found["mrr"] == pytest.approx((1 / 2 + 1 + 1 + 0) / 4)
    assert found["mrr_pessimistic"] == pytest.approx((1 / 3 + 1 + 1 + 0) / 4)


def test_a_tied_vocabulary_shows_how_optimistic_strict_ranks_are() -> None:
    scores = dict.fromkeys("ABCDE", 0.0)
    assert rank(scores, ["C"]) == 1
    assert rank(scores, ["C"], "pessimistic") == 5
    assert rank(scores, ["B", "C"], "pessimistic") == 4  # the other alternative is taken out


@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(0, 4), min_size=1),
    st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=3, unique=True),
)
def test_is_the_place_after_sorting(scores: dict[str, int], gold: list[str]) -> None:
    own = [scores[value] for value in gold if value in scores]
    others = [score for value, score in scores.items() if value not in gold]
    for ties, ahead in (("optimistic", lambda s, o: s > o), ("pessimistic", lambda s, o: s >= o)):
        expected = min((1 + sum(ahead(s, o) for s in others) for o in own), default=float("inf"))
        assert rank({k: float(v) for k, v in scores.items()}, gold, ties) == expected  # type: ignore[arg-type]


def test_needs_gold() -> None:
    with pytest.raises(DataFault, match="example a: it has no gold values"):
        measure([Example(id="a", text="text")], [{}])
