"""Grounding: exact, folded, nearly, nowhere; offsets always give back what is said to stand there."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from magister.extraction.ground import Source, fold, ground
from rapidfuzz.distance import Indel


def found(value: str, text: str, copied: bool = True, **beside: str) -> tuple[str, str, str | None, str]:
    """The value, the characters at its place, where that is, how it was found."""
    texts = {"text": text, **beside}
    one = ground(value, copied, {name: Source(said) for name, said in texts.items()})
    return one.value, texts[one.where][one.start : one.end] if one.where else "", one.where, one.how


@pytest.mark.parametrize(
    ("value", "text", "said", "how"),
    [
        ("red", "a red mug", "red", "exact"),
        ("red", "colored red", "red", "exact"),
        ("RED", "a red mug", "red", "folded"),
        ("300ml", "holds 300 ml", "300 ml", "folded"),
        ("300 ml", "holds 300ml", "300ml", "folded"),
        ("300", "holds 300ml", "300", "exact"),
        ("it's", "so it’s here", "it’s", "folded"),
        ("café", unicodedata.normalize("NFD", "le café noir"), unicodedata.normalize("NFD", "café"), "folded"),
        ("ＡＢＣ", "model ABC", "ABC", "folded"),
        ("straße", "in der STRASSE", "STRASSE", "folded"),
        ("红色", "这是红色的杯子", "红色", "exact"),
        ("Baumwoll", "Baumwollshirt", "Baumwoll", "exact"),
        ("Colgate Total Advanced", "new Colgate Totall Advanced paste", "Colgate Totall Advanced", "nearly"),
        ("stainless steel, brushed", "of stainless steel brushed.", "stainless steel brushed", "nearly"),
    ],
)
def test_where_a_value_stands(value: str, text: str, said: str, how: str) -> None:
    assert found(value, text) == (said, said, "text", how)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("S", "a Shirt"),
        ("red", "colored"),
        ("50", "of 1500 pieces"),
        ("5", "of 1.5 l"),
        ("1", "of 1.5 l"),
        ("weight of 1500 ml in all", "weight of 15000 ml in all"),
        ("green", "a red mug"),
        ("", "a red mug"),
        ("   ", "a red mug"),
    ],
)
def test_what_stands_nowhere(value: str, text: str) -> None:
    assert found(value, text) == (value, "", None, "nowhere")


def test_a_part_of_a_character_is_no_place() -> None:
    assert found("fi", "a ﬁ") == ("ﬁ", "ﬁ", "text", "folded")
    assert found("fine", "x ﬁne")[1] == "ﬁne"
    assert found("inex", "ﬁnex")[2] is None


def test_the_page_goes_before_the_picture_unless_the_picture_is_nearer() -> None:
    assert found("NEW", "a new mug", ocr="NEW")[2:] == ("ocr", "exact")
    assert found("NEW", "a NEW mug", ocr="NEW")[2:] == ("text", "exact")
    assert found("old", "a new mug", ocr="OLD")[0:3:2] == ("OLD", "ocr")


def test_what_need_not_be_copied_is_not_changed() -> None:
    assert found("RED", "a red mug", copied=False) == ("RED", "red", "text", "folded")
    assert found("Baumwoll", "Baumwollshirt", copied=False)[2] is None
    assert found("Colgate Total Advanced", "Colgate Totall Advanced", copied=False)[2] is None


WORDS = st.lists(st.sampled_from("mug Red 1,5 kg ﬁne é É ß 300ml “x” — 杯".split()), min_size=1, max_size=12)


@given(WORDS, st.data())
def test_what_was_taken_out_of_a_text_is_found_in_it(words: list[str], data: st.DataObject) -> None:
    text = " ".join(words)
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, len(words) - 1))
    value = " ".join(words[first : last + 1])
    said, there, where, how = found(value, text)
    assert (said, there, where, how) == (value, value, "text", "exact")
    loose, there, where, _ = found(value.swapcase().replace(" ", "  "), text)
    assert where == "text"
    assert loose == there
    assert fold(there)[0] == fold(value)[0]


@given(st.text(max_size=30), st.text(max_size=12))
def test_offsets_always_give_back_the_value(text: str, value: str) -> None:
    said, there, where, how = found(value, text)
    if where is None:
        assert said == value
        return
    assert said == there != ""
    if how == "nearly":
        assert Indel.normalized_similarity(fold(said)[0], fold(value)[0]) >= 0.9
    else:
        assert fold(said)[0] == fold(value)[0]
