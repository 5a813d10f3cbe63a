"""An attribute as a query: what is asked about a product's text, in which words, and what is asked in vain."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field

from ..tasks.attributes import Answer, Attribute, Example, Schema
from ..tasks.task import DataFault
from .collate import Item
from .settings import BackboneConfig
from .student import View
from .system import UnsupportedView
from .units import pairs


class QueryConfig(BackboneConfig):
    """Settings of a student that is asked for one attribute at a time, by its name.

    Attributes:
        category: whether the product's category stands before the attribute's name.
        example_values: at most so many of the schema's example values stand behind the name (QPAVE: Shinzato et al.,
            ACL 2022); 0 for the name alone.
        values_dropped: share of the training queries that go without them all the same, so that the text is still
            read where the value is a new one.
        negatives: attributes of the category that a product's gold does not mention, drawn anew each time it is
            trained on and asked as absent ones; for data that lists only what is there.
    """

    tasks = ("attributes",)

    category: bool = False
    example_values: int = Field(0, ge=0)
    values_dropped: float = Field(0.5, ge=0, le=1)
    negatives: int = Field(0, ge=0)


def asked(examples: Sequence[Example], schema: Schema, config: QueryConfig, training: bool) -> list[Item]:
    """An item for each attribute asked of each product; in training, for its negatives as well.

    Raises:
        UnsupportedView: an attribute whose values are not copied from a text, for students that mark places in it.
    """
    if training and config.negatives:
        examples = [with_absent(e, schema, config.negatives) for e in examples]
    items = pairs(examples)
    for item in items:
        attribute = known(item, schema)
        if attribute is not None:
            check_marked(item.example, attribute, "marks places in it")
    return items


def check_marked(example: Example, attribute: Attribute, does: str) -> None:
    """Refuse an attribute whose values need not stand in the text, for a student that ``does`` something with it."""
    if attribute.choices:
        raise UnsupportedView(
            f"example {example.id}: {attribute.name} is a {attribute.type}, whose values need not stand in the text; "
            f"this student {does} (unified's head ranking chooses among options)"
        )


def with_absent(example: Example, schema: Schema, count: int) -> Example:
    """The product asked, besides, for up to ``count`` attributes of its category that its gold does not mention.

    They become absent in its gold. Drawn with torch's random numbers, whose state a checkpoint keeps.
    """
    if example.gold is None:
        return example
    possible = (a.name for a in schema.of(example.category) if not a.choices)
    others = [name for name in possible if name not in example.gold.values]
    drawn = [others[i] for i in torch.randperm(len(others))[:count].tolist()]
    gold = Answer(values={**example.gold.values, **dict.fromkeys(drawn, ())})
    wanted = tuple(dict.fromkeys([*example.asked, *drawn]))
    return example.model_copy(update={"asked": wanted, "gold": gold})


def wording(item: Item, schema: Schema, config: QueryConfig, training: bool) -> str:
    """The query of an item: ``[category] attribute[: value, value, ...]``. A name that no schema has is one, too."""
    name, category = item.labels[0], item.example.category
    query = f"{category} {name}" if config.category and category else name
    attribute = known(item, schema)
    if attribute is None or not config.example_values or (training and float(torch.rand(())) < config.values_dropped):
        return query
    values = ", ".join(attribute.examples[: config.example_values])
    return f"{query}: {values}" if values else query


def check(examples: Sequence[Example], items: Sequence[Item], view: View) -> None:
    """Refuse a view that a student of texts cannot be shown, and a batch of which nothing is asked."""
    if not view.text:
        raise UnsupportedView("without text there is nowhere to look for a value")
    if view.images or view.prompt or view.explain:
        raise UnsupportedView("this student reads texts alone: no pictures, no conditional prompt, no explanations")
    if not items:
        raise DataFault(f"example {examples[0].id} and its batch", "no attribute is asked of them", "leave them out")


def known(item: Item, schema: Schema) -> Attribute | None:
    """The attribute asked, or None for a name that no schema has."""
    return next((a for a in schema.of(item.example.category) if a.name == item.labels[0]), None)
