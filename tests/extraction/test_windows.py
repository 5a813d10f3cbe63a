"""Windows cover every character, fit the limit and overlap; their answers are merged."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from magister.extraction.ground import Found
from magister.extraction.windows import OVERLAP, merge, windows

TEXTS = st.text(st.sampled_from("aB1. \n!é。字"), max_size=300)


@given(TEXTS, st.integers(2, 60))
def test_all_of_the_text_is_covered_in_order_and_fits(text: str, limit: int) -> None:
    cut = windows(text, limit)
    assert cut[0][0] == 0
    assert cut[-1][1] == len(text)
    assert all(end - start <= limit for start, end in cut)
    for (start, end), (after, _) in pairwise(cut):
        assert start < after <= end  # goes on, and leaves no gap


@given(st.lists(st.text("abc", min_size=1, max_size=8), min_size=1, max_size=80), st.integers(100, 200))
def test_no_word_that_fits_the_overlap_is_torn(words: list[str], limit: int) -> None:
    text = " ".join(words)
    at = 0
    for word in words:
        assert any(a <= at and at + len(word) <= b for a, b in windows(text, limit))
        at += len(word) + 1


def test_cut_at_lines_then_sentences_then_words() -> None:
    line = "x" * 40
    text = "\n".join([line] * 10)
    assert all(text[a:b].strip("\n").count("x") % 40 == 0 for a, b in windows(text, 500))
    sentence = "One two three four five. "
    text = sentence * 40
    assert all(text[a:b].startswith("One") and text[a:b].rstrip().endswith("five.") for a, b in windows(text, 300))
    text = "word " * 200
    cut = windows(text, 100)
    assert all(text[a:b].startswith("word") and text[a:b].endswith(" ") for a, b in cut)
    overlaps = [end - after for (_, end), (after, _) in pairwise(cut)]
    assert all(0 < seen <= OVERLAP * 100 for seen in overlaps)


def test_what_fits_is_one_window() -> None:
    assert windows("a b c", 5) == windows("a b c", None) == [(0, 5)]
    assert windows("", 5) == [(0, 0)]
    with pytest.raises(ValueError, match="too small"):
        windows("abc", 1)


def at(value: str, place: int | None) -> Found:
    return Found(value, at=place) if place is None else Found(value, place, place + 1, "text", "exact", place)


def test_one_value_is_the_first_that_stands_in_the_product() -> None:
    merged = merge([([], 0.9), ([at("guess", None)], 0.8), ([at("red", 90)], 0.7), ([at("blue", 99)], 0.6)], False)
    assert [f.value for f in merged.found] == ["red"]
    assert (merged.confidence, merged.conflict) == (0.7, True)
    merged = merge([([at("guess", None)], 0.8), ([at("Guess ", None)], None)], False)
    assert ([f.value for f in merged.found], merged.conflict) == (["guess"], False)


def test_many_values_are_all_of_them_once_in_reading_order() -> None:
    answers = [([at("b", 20), at("a", 5), at("nowhere", None)], 0.9), ([at("B", 20), at("c", 40)], 0.8)]
    merged = merge(answers, True)
    assert [f.value for f in merged.found] == ["a", "b", "c", "nowhere"]
    assert (merged.confidence, merged.conflict) == (0.8, False)


def test_absent_in_all_windows_is_as_sure_as_the_least_sure() -> None:
    assert merge([([], 0.9), ([], 0.5)], False).confidence == 0.5
    assert merge([([], 0.9), ([], None)], False).confidence is None
