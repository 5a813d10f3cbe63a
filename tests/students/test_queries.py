"""Attributes as queries: their words, their negatives, and what cannot be asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from magister.students import queries
from magister.students.collate import Item
from magister.students.queries import QueryConfig
from magister.students.student import View
from magister.students.system import UnsupportedView
from magister.tasks.attributes import Answer, Attribute, Example, Schema
from magister.tasks.task import DataFault

SCHEMA = Schema(
    attributes=(
        Attribute(name="size", examples=("M", "XL", "42"), categories=("shirt",)),
        Attribute(name="size", examples=("40",), categories=("shoe",)),
        Attribute(name="brand", categories=("shirt",)),
        Attribute(name="fit", categories=("shirt",)),
        Attribute(name="heel", categories=("shoe",)),
        Attribute(name="colour", type="one_of", options=("red", "blue")),
    )
)


def product(category: str = "shirt", **gold: tuple[str, ...]) -> Example:
    return Example(id="p", text="a shirt", category=category, asked=tuple(gold), gold=Answer(values=dict(gold)))


def said(name: str, training: bool = False, of: str = "shirt", **settings: Any) -> str:
    item = Item(0, product(of), (name,))
    return queries.wording(item, SCHEMA, QueryConfig(**settings), training)


def test_wordings() -> None:
    assert said("size") == "size"
    assert said("size", example_values=2) == "size: M, XL"
    assert said("size", of="shoe", example_values=2) == "size: 40"
    assert said("brand", example_values=2) == "brand"
    assert said("a name that no schema has", example_values=2) == "a name that no schema has"


def test_the_category_stands_before_the_name() -> None:
    assert said("size", of="shoe", category=True, example_values=3) == "shoe size: 40"
    assert said("size", of="", category=True) == "size"


def test_example_values_are_dropped_in_training_alone() -> None:
    torch.manual_seed(0)
    drawn = [said("size", training=True, example_values=1, values_dropped=0.25) for _ in range(400)]
    assert set(drawn) == {"size", "size: M"}
    assert 60 < drawn.count("size") < 140
    assert {said("size", example_values=1, values_dropped=1.0) for _ in range(20)} == {"size: M"}


def test_negatives_are_attributes_of_the_category_that_gold_does_not_mention() -> None:
    seen = set()
    for seed in range(20):
        torch.manual_seed(seed)
        made = queries.with_absent(product(size=("M",)), SCHEMA, 1)
        (new,) = set(made.asked) - {"size"}
        assert made.asked == ("size", new)
        assert made.gold == Answer(values={"size": ("M",), new: ()})
        seen.add(new)
    assert seen == {"brand", "fit"}, "colour has options: it is not looked for in a text"
    everything = queries.with_absent(product(size=("M",)), SCHEMA, 9)
    assert set(everything.asked) == {"size", "brand", "fit"}
    unlabelled = product().model_copy(update={"gold": None})
    assert queries.with_absent(unlabelled, SCHEMA, 3) is unlabelled


def test_negatives_are_asked_in_training_alone() -> None:
    examples = [product(size=("M",))]
    labels = lambda training: [i.labels[0] for i in queries.asked(examples, SCHEMA, QueryConfig(negatives=2), training)]
    assert labels(False) == ["size"]
    assert sorted(labels(True)) == ["brand", "fit", "size"]
    assert examples == [product(size=("M",))], "the products themselves stay as they are"


def test_attributes_with_options_are_refused() -> None:
    with pytest.raises(UnsupportedView, match="example p: colour is a one_of"):
        queries.asked([product(colour=("red",))], SCHEMA, QueryConfig(), False)


@pytest.mark.parametrize("view", [View(text=False), View(images=True), View(prompt=True), View(explain="knowledge")])
def test_other_views_are_refused(view: View) -> None:
    example = product(size=("M",))
    items = queries.asked([example], SCHEMA, QueryConfig(), False)
    with pytest.raises(UnsupportedView):
        queries.check([example], items, view)
    queries.check([example], items, View(context=("knowledge",)))
    with pytest.raises(DataFault, match=r"example p .*no attribute is asked"):
        queries.check([example], [], View())
