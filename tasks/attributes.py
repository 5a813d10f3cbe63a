"""Multimodal attribute value extraction (MAE): text and images in, a value or "absent" per attribute out."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from .images import Image
from .record import Record
from .task import Task, closed_object

#: How an attribute's value is stated: copied from the text, written freely, or chosen out of a closed list.
ValueType = Literal["verbatim", "free", "one_of"]


class Attribute(Record):
    """One attribute: its name, what it means, the kind of value, closed options or example values.

    ``categories`` names the product categories it applies to; empty means all.
    """

    name: str
    description: str = ""
    type: ValueType = "verbatim"
    options: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _options_if_closed(self) -> Attribute:
        if (self.type == "one_of") != bool(self.options):
            raise ValueError(f"attribute {self.name!r}: options belong to the type one_of, and only to it")
        return self


class Schema(Record):
    """The attributes of a data set. One name may stand several times, for different categories."""

    attributes: tuple[Attribute, ...]

    def of(self, category: str) -> tuple[Attribute, ...]:
        """The attributes that apply to a category."""
        return tuple(a for a in self.attributes if not a.categories or category in a.categories)

    def attribute(self, name: str, category: str = "") -> Attribute:
        """The attribute of that name (for that category); a `KeyError` that lists what there is, if it has none."""
        for attribute in self.of(category):
            if attribute.name == name:
                return attribute
        known = ", ".join(a.name for a in self.of(category)) or "none"
        raise KeyError(f"unknown attribute {name!r} for category {category!r}; there are: {known}")


class Answer(Record):
    """Values by attribute; an empty tuple says that the value is absent.

    As gold, several values are alternatives of which one is enough (the convention of the field's data sets).
    """

    values: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class Example(Record):
    """A product: its text, category and pictures, the attributes asked of it, and their gold values.

    ``context`` holds named texts beside the text, for example ``caption``, ``ocr`` or ``knowledge``.
    """

    id: str
    text: str = Field(min_length=1)
    category: str = ""
    asked: tuple[str, ...] = ()
    images: tuple[Image, ...] = ()
    context: dict[str, str] = Field(default_factory=dict)
    gold: Answer | None = None


def answer_schema(schema: Schema, example: Example) -> dict[str, Any]:
    """JSON schema of a teacher's answer: every attribute asked is a required key; null says absent."""
    properties: dict[str, Any] = {}
    for name in example.asked:
        attribute = schema.attribute(name, example.category)
        value: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": 200}
        if attribute.type == "one_of":
            value = {"type": "string", "enum": list(attribute.options)}
        properties[name] = {"anyOf": [value, {"type": "null"}]}
    return closed_object(properties)


TASK = Task(
    key="attributes",
    title="multimodal attribute value extraction",
    reads="product text, images, category, attributes asked",
    answers='a value or "absent" per attribute',
    Example=Example,
    Answer=Answer,
    Schema=Schema,
    answer_schema=answer_schema,
)
