"""Tag schemes: spans to tags and back, attribute values to tags and back."""

from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from magister.students.collate import Text
from magister.students.heads.tags import Tags, decode_values, encode_values, merge_values
from magister.tasks import attributes

LABELS = ("Brand", "Color")


def text_of(written: str) -> Text:
    spans = tuple(m.span() for m in re.finditer(r"\S+", written))
    return Text(tuple((n,) for n in range(len(spans))), spans, (0,) * len(spans))


def product(written: str, **gold: tuple[str, ...]) -> attributes.Example:
    return attributes.Example(id="p", text=written, asked=LABELS, gold=attributes.Answer(values=gold))


def test_the_tags_of_bioe() -> None:
    tags = Tags(LABELS, "BIOE")
    assert tags.names == ["O", "B-Brand", "I-Brand", "E-Brand", "B-Color", "I-Color", "E-Color"]
    encoded, left_out = tags.encode([(0, 3, "Brand"), (3, 5, "Color"), (5, 6, "Color"), (4, 6, "Brand")], 7)
    assert [tags.names[t] for t in encoded] == ["B-Brand", "I-Brand", "E-Brand", "B-Color", "E-Color", "B-Color", "O"]
    assert left_out == 1
    legal = tags.legal()
    assert legal.shape == (8, 7)
    assert legal[:, 3].tolist() == [False, True, True, False, False, False, False, False]  # E-Brand
    assert tags.only(["Color"]).tolist() == [True, False, False, False, True, True, True]


@settings(deadline=None)
@given(st.sampled_from(["BIO", "BIOE"]), st.lists(st.tuples(st.integers(0, 4), st.integers(1, 3), st.booleans())))
def test_spans_come_back(scheme: str, steps: list[tuple[int, int, bool]]) -> None:
    tags, spans, at = Tags(LABELS, scheme), [], 0
    for gap, length, first in steps:
        spans.append((at + gap, at + gap + length, LABELS[first]))
        at += gap + length
    encoded, left_out = tags.encode(spans, at)
    assert left_out == 0
    assert tags.decode(encoded) == spans


@settings(deadline=None)
@given(st.sampled_from(["BIO", "BIOE"]), st.lists(st.integers(0, 4), max_size=9))
def test_any_tags_are_spans_that_do_not_overlap(scheme: str, path: list[int]) -> None:
    spans = Tags(LABELS, scheme).decode(path)
    covered = [at for first, last, _ in spans for at in range(first, last)]
    assert covered == [at for at, tag in enumerate(path) if tag]


def test_values_are_tagged_wherever_they_stand_the_longer_first() -> None:
    written = "Red Acme mug dark red and red"
    tags = Tags(LABELS)
    encoded, counts = encode_values(product(written, Brand=("Acme",), Color=("dark red", "red")), LABELS,
                                    text_of(written), tags)  # fmt: skip
    assert encoded is not None
    names = [tags.names[t] for t in encoded]
    assert names == ["B-Color", "B-Brand", "O", "B-Color", "I-Color", "O", "B-Color"]
    assert counts == {"values_overlapping": 1}
    absent, counts = encode_values(product(written, Brand=("Bolt",)), LABELS, text_of(written), tags)
    assert absent == [0] * 7
    assert counts == {"values_not_in_text": 1, "attributes_without_gold": 1}
    unlabelled = product(written).model_copy(update={"gold": None})
    assert encode_values(unlabelled, LABELS, text_of(written), tags)[0] is None


def test_the_surest_span_is_the_value() -> None:
    written, tags = "red mug dark red", Tags(LABELS)
    path = [tags.names.index(t) for t in ("B-Color", "O", "B-Color", "I-Color")]
    posterior = torch.full((4, len(tags)), 0.01)
    posterior[0, path[0]], posterior[2, path[2]], posterior[3, path[3]] = 0.6, 0.9, 0.7
    posterior[1, tags.names.index("B-Brand")] = 0.25
    example = product(written)
    found = decode_values(example, LABELS, text_of(written), path, posterior, tags)
    assert found["Color"] == (("dark red",), pytest.approx(0.7))
    assert found["Brand"] == ((), pytest.approx(0.75))
    answer, sure = merge_values(example, [{"Color": found["Color"]}, {"Brand": found["Brand"]}])
    assert answer.values == {"Brand": (), "Color": ("dark red",)}
    assert sure == {"Brand": pytest.approx(0.75), "Color": pytest.approx(0.7)}
