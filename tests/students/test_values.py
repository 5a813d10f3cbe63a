"""The vocabulary of values, the negatives drawn from it, and the margin loss against loops."""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from magister.students.heads.cosine import at, draw, margin_loss, softmax_loss
from magister.students.heads.values import ValueVocabulary
from magister.tasks.attributes import Answer, Attribute, Example, Schema
from magister.tasks.task import DataFault

SCHEMA = Schema(
    attributes=(
        Attribute(name="brand"),
        Attribute(name="colour", type="one_of", options=("Red", "Blue", "Green")),
        Attribute(name="boxed", type="boolean"),
    )
)


def product(category: str, **gold: tuple[str, ...]) -> Example:
    return Example(id="x", text="a product", category=category, asked=tuple(gold), gold=Answer(values=dict(gold)))


TRAIN = [
    product("tea", brand=("Lipton", "lipton tea"), colour=("red",)),
    product("tea", brand=("Lipton",), colour=("Blue",)),
    product("soap", brand=("Dove",), boxed=("true",)),
    product("soap", brand=(), colour=()),
]


def named(vocabulary: ValueVocabulary, category: str, name: str) -> list[str]:
    return [vocabulary.values[i] for i in vocabulary.candidates(product(category), name)]


def test_candidates_by_category_and_by_attribute() -> None:
    known = ValueVocabulary.learn(SCHEMA, TRAIN)
    by_category, by_attribute = (ValueVocabulary(SCHEMA, known, kind) for kind in ("category", "attribute"))
    assert named(by_category, "tea", "brand") == ["Lipton", "lipton tea"]
    assert named(by_category, "soap", "brand") == ["Dove", ""]
    assert set(named(by_category, "shoes", "brand")) == {"Lipton", "lipton tea", "Dove", ""}  # never seen: of any
    assert set(named(by_attribute, "tea", "brand")) == {"Lipton", "lipton tea", "Dove", ""}
    assert named(by_category, "tea", "colour") == ["Red", "Blue", "Green"]
    assert named(by_category, "soap", "colour") == ["Red", "Blue", "Green", ""]
    assert named(by_category, "tea", "boxed") == ["true", "false"]


def test_counts_and_gold() -> None:
    vocabulary = ValueVocabulary(SCHEMA, ValueVocabulary.learn(SCHEMA, TRAIN))
    counts = dict(zip(vocabulary.values, vocabulary.counts, strict=True))
    expected = {"Red": 1, "Blue": 1, "Green": 0, "true": 1, "false": 0, "Lipton": 2, "lipton tea": 1, "Dove": 1, "": 2}
    assert counts == expected
    gold = lambda example, name: [vocabulary.values[i] for i in vocabulary.gold(example, name)]
    assert gold(TRAIN[0], "brand") == ["Lipton", "lipton tea"]
    assert gold(TRAIN[0], "colour") == ["Red"]  # as the closed list writes it
    assert gold(TRAIN[3], "brand") == [""]
    assert gold(product("tea", brand=("Tetley",)), "brand") == []


def test_an_attribute_that_training_never_had_has_no_values() -> None:
    vocabulary = ValueVocabulary(SCHEMA, ValueVocabulary.learn(SCHEMA, [TRAIN[2]]))
    assert named(vocabulary, "tea", "brand") == ["Dove"]
    empty = ValueVocabulary(SCHEMA, ValueVocabulary.learn(SCHEMA, ()))
    assert named(empty, "tea", "brand") == []
    assert named(empty, "tea", "colour") == ["Red", "Blue", "Green"]


def test_faults_name_the_example() -> None:
    with pytest.raises(DataFault, match=r"example x: colour: 'pink' is not among its options"):
        ValueVocabulary.learn(SCHEMA, [product("tea", colour=("pink",))])
    with pytest.raises(DataFault, match="example x: unknown attribute 'price'"):
        ValueVocabulary.learn(SCHEMA, [product("tea", price=("1",))])


def test_negatives_come_from_both_sources_and_are_never_gold() -> None:
    torch.manual_seed(0)
    candidates = torch.tensor([[0, 1, 2, -1], [3, 4, 5, 0], [2, -1, -1, -1], [2, -1, -1, -1]])
    positives = torch.tensor([[1, -1], [3, 4], [2, -1], [-1, -1]])
    frequencies = torch.tensor([0.0, 5.0, 1.0, 1.0, 1.0, 0.0, 3.0])
    drawn = draw(candidates, positives, frequencies, 4000, within=0.25)
    share = lambda row: {k: v / 4000 for k, v in Counter(drawn[row].tolist()).items()}
    first = share(0)  # a quarter from {0, 2}, the rest from {2, 3, 4, 6} by 1 : 1 : 1 : 3
    expected = {0: 0.125, 2: 0.125 + 0.125, 3: 0.125, 4: 0.125, 6: 0.375}
    assert first.keys() == expected.keys()
    assert all(abs(first[k] - expected[k]) < 0.03 for k in expected)
    assert not {3, 4} & share(1).keys()
    assert 2 not in share(2)  # its only value is gold: all come from the others
    only = draw(torch.tensor([[0, -1]]), torch.tensor([[0, -1]]), torch.tensor([1.0]), 3, 0.5)
    assert only.tolist() == [[-1, -1, -1]]


def test_the_margin_loss_is_the_mean_over_pairs_then_slots() -> None:
    none = -torch.inf
    positive = torch.tensor([[0.9, none], [0.1, 0.4], [none, none], [0.5, none]], requires_grad=True)
    negative = torch.tensor([[0.2, -0.8], [0.3, none], [0.3, 0.1], [none, none]], requires_grad=True)
    slots = []
    for own, others in zip(positive.tolist(), negative.tolist(), strict=True):
        pairs = [max(0.0, 1 + (1 - p) - (1 - n)) for p in own for n in others if p > none and n > none]
        if max(own) > none:
            slots.append(sum(pairs) / len(pairs) if pairs else 0.0)
    loss = margin_loss(positive, negative, 1.0)
    assert loss.item() == pytest.approx(sum(slots) / 3)
    loss.backward()
    assert positive.grad is not None
    assert positive.grad.isfinite().all()
    assert at(torch.tensor([[0.1, 0.2]]), torch.tensor([[1, -1]])).tolist() == [[pytest.approx(0.2), none]]


def test_the_softmax_loss_is_over_candidates_and_gold() -> None:
    none = -torch.inf
    positive = torch.tensor([[0.9, 0.2], [0.1, none], [none, none]], requires_grad=True)
    candidate = torch.tensor([[0.9, 0.5, 0.2], [0.3, none, none], [0.4, 0.5, none]])
    gold = torch.tensor([[True, False, True], [False, False, False], [False, False, False]])
    power = lambda *cosines: sum(math.exp(2 * c) for c in cosines)
    first = -math.log(power(0.9, 0.2) / power(0.9, 0.5, 0.2))
    second = -math.log(power(0.1) / power(0.1, 0.3))  # its gold is no candidate
    loss = softmax_loss(positive, candidate, gold, 2.0)
    assert loss.item() == pytest.approx((first + second) / 2)
    loss.backward()
    assert positive.grad is not None
    assert positive.grad.isfinite().all()
