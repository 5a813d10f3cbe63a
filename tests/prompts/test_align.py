"""Mentions are found where they stand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from magister.prompts.align import Aligner


@pytest.mark.parametrize(
    ("text", "mentions", "spans"),
    [
        ("Trump meets Trump", ["Trump", "Trump", "Trump"], [(0, 5), (12, 17), None]),
        ("focus on US", ["US"], [(9, 11)]),
        ("a startup sells ART", ["art"], [(16, 19)]),
        ("KEVIN durant", ["Kevin Durant"], [(0, 12)]),
        ("Rock ' n ' Roll", ["Rock 'n' Roll"], [(0, 15)]),
        ("Macy’s parade", ["Macy's"], [(0, 6)]),
        ("50 ml bottle", ["50ml"], [(0, 5)]),
        ("#NBA2017", ["NBA"], [(1, 4)]),
        ("赋予整款短袖更好", ["短袖"], [(4, 6)]),
        ("New York and York", ["New York", "York"], [(0, 8), (13, 17)]),
        ("New York", ["New York", "York"], [(0, 8), (4, 8)]),
        ("York , New York", ["New York", "York"], [(7, 15), (0, 4)]),
        ("abc", ["", " ", "abcd", "x"], [None, None, None, None]),
        ("İstanbul’da", ["İstanbul"], [(0, 8)]),
        ("a.c abc", ["a.c"], [(0, 3)]),
    ],
)
def test_places(text, mentions, spans):
    aligner = Aligner(text)
    assert [aligner.find(m) for m in mentions] == spans


@given(st.text(min_size=1), st.data())
def test_every_part_of_a_text_is_found(text, data):
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    mention = text[start:end].strip()
    place = Aligner(text).find(mention)
    assert (place is None) == (not mention)
    if place:
        # A whole word in another case goes before an exact part of a word, so only the length is sure.
        assert len("".join(text[slice(*place)].split())) == len("".join(mention.split()))


@given(st.text(), st.lists(st.text(max_size=5), max_size=5))
def test_no_place_is_given_twice_and_all_lie_in_the_text(text, mentions):
    aligner = Aligner(text)
    places = [p for m in mentions if (p := aligner.find(m))]
    assert len(set(places)) == len(places)
    assert all(0 <= start < end <= len(text) for start, end in places)
