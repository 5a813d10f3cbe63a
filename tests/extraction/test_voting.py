"""Votes over shuffled orders."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from magister.extraction.voting import changed, comparable, is_unsure, shuffled, vote
from magister.tasks.attributes import Answer, Example


def said(**values: tuple[str, ...]) -> Answer:
    return Answer(values=values)


def test_the_most_frequent_value_wins_in_the_words_it_was_first_said_in():
    answer, shares = vote([said(a=("red",)), said(a=("Dark  Blue",)), said(a=("dark blue.",))])
    assert answer.values == {"a": ("Dark  Blue",)}
    assert shares == {"a": pytest.approx(2 / 3)}


def test_a_tie_goes_to_the_first_order():
    assert vote([said(a=("x",)), said(a=("y",))])[0].values == {"a": ("x",)}
    assert vote([said(a=("x",)), said(a=("y",)), said(a=("z",))])[0].values == {"a": ("x",)}
    # The first is not among those tied: the earliest of them.
    answers = [said(a=("x",)), said(a=("y",)), said(a=("z",)), said(a=("z",)), said(a=("y",))]
    assert vote(answers)[0].values == {"a": ("y",)}


def test_absence_is_a_vote_and_several_values_are_a_set():
    answer, shares = vote([said(a=("x",), b=("p", "Q")), said(a=(), b=("q", "p")), said(b=("p",))])
    assert answer.values == {"a": (), "b": ("p", "Q")}
    assert shares == {"a": pytest.approx(2 / 3), "b": pytest.approx(2 / 3)}


def test_one_answer_decides_alone():
    assert vote([said(a=("x",))]) == (said(a=("x",)), {"a": 1.0})


@given(st.lists(st.sampled_from(["x", "X ", "y", "z", None]), min_size=1, max_size=7))
def test_votes_are_counted_as_a_counter_does(words):
    answer, shares = vote([said(a=(word,) if word else ()) for word in words])
    folded = [comparable(word) if word else None for word in words]
    counts = Counter(folded)
    most = max(counts.values())
    expected = next(word for word, key in zip(words, folded, strict=True) if counts[key] == most)
    assert answer.values["a"] == ((expected,) if expected else ())
    assert shares["a"] == pytest.approx(most / len(words))


@given(st.integers(0, 7), st.integers(0, 6), st.integers(0, 3))
def test_orders_are_others_distinct_and_reproducible(n, k, seed):
    example = Example(id="e", text="x", asked=tuple("abcdefg"[:n]), gold=said(a=("x",)))
    orders = list(shuffled(example, k, seed))
    assert len(orders) == min(k, math.factorial(n) - 1)
    assert len({e.asked for e in orders} | {example.asked}) == len(orders) + 1
    assert all(sorted(e.asked) == sorted(example.asked) for e in orders)
    assert all(e.model_copy(update={"asked": example.asked}) == example for e in orders)
    assert orders == list(shuffled(example, k, seed))


def test_orders_differ_by_seed_and_example():
    made = lambda name, seed: [e.asked for e in shuffled(Example(id=name, text="x", asked=tuple("abcdef")), 3, seed)]
    assert made("1", 0) != made("1", 1)
    assert made("1", 0) != made("2", 0)


def test_asked_again_are_the_unsure():
    assert is_unsure({"a": 0.9, "b": 0.4}, ("a", "b"), 0.5)
    assert is_unsure({"a": 0.9, "b": None}, ("a", "b"), 0.5)
    assert is_unsure({"a": 0.9}, ("a", "b"), 0.5)
    assert not is_unsure({"a": 0.9, "b": 0.5}, ("a", "b"), 0.5)
    assert is_unsure({"a": 1.0}, ("a",))


def test_what_changed_is_counted_by_attribute():
    before = said(a=("Red",), b=("x",), c=())
    assert changed(before, said(a=("red ",), b=("y",), c=("z",))) == 2
    assert changed(before, before) == 0
