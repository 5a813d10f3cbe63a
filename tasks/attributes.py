"""Multimodal attribute value extraction (MAE): text and images in, a value or "absent" per attribute out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from .images import Image
from .record import Record
from .task import DataFault, Task, closed_object

#: How an attribute's value is stated: copied from the text; written freely; a number or a date, copied with the
#: characters of the text; true or false; one or several out of a closed list.
ValueType = Literal["verbatim", "free", "number", "date", "boolean", "one_of", "several_of"]

#: The types whose values come out of a closed list.
CLOSED = ("one_of", "several_of")
#: The types whose values are characters of the source, so that there is a place to look for.
COPIED = ("verbatim", "number", "date")
#: How the two values of a boolean are written in an `Answer`.
TRUE, FALSE = "true", "false"

#: The longest value, in characters, and the most values of one attribute that a constrained teacher can give.
LONGEST, MOST = 200, 20


class Attribute(Record):
    """One attribute: its name, what it means, the kind of value, closed options or example values.

    Attributes:
        categories: the product categories it applies to; empty means all.
        unit: of a number, the unit wanted (values are kept as written; normalisation converts them).
        boundary: what belongs to a value and what does not (its unit? the brand before it?), for the teacher.
        many: whether several values may be given; a ``several_of`` always has it.
        aliases: other names under which it may be answered.
        names: canonical names by surface form, for normalisation alone.
    """

    name: str
    description: str = ""
    type: ValueType = "verbatim"
    options: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    unit: str = ""
    boundary: str = ""
    many: bool = False
    aliases: tuple[str, ...] = ()
    names: dict[str, str] = Field(default_factory=dict)

    @property
    def choices(self) -> tuple[str, ...]:
        """The values that it can have, where they are known: its options, or true and false."""
        return (TRUE, FALSE) if self.type == "boolean" else self.options

    @property
    def copied(self) -> bool:
        """Whether its values are characters of the source."""
        return self.type in COPIED

    @model_validator(mode="before")
    @classmethod
    def _several_are_many(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("type") == "several_of":
            return {"many": True, **given}
        return given

    @model_validator(mode="after")
    def _fields_fit_the_type(self) -> Attribute:
        if problems := "; ".join(self._problems()):
            raise ValueError(f"attribute {self.name!r}: {problems}")
        return self

    def _problems(self) -> Iterator[str]:
        if (self.type in CLOSED) != bool(self.options):
            yield "options belong to the types one_of and several_of, and only to them"
        if len(set(self.options)) < len(self.options):
            yield "an option stands twice"
        if self.unit and self.type != "number":
            yield "a unit belongs to the type number"
        if self.names and self.type == "boolean":
            yield "names belong to no boolean"
        if self.many and self.type in ("boolean", "one_of"):
            yield f"a {self.type} has one value" + ("; several are several_of" if self.type == "one_of" else "")
        if not self.many and self.type == "several_of":
            yield "a several_of has many values"
        if self.name in self.aliases:
            yield "its own name is among its aliases"

    @model_serializer(mode="wrap")
    def _without_what_is_not_used(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """What the first version did not have is written only where it is used: stored digests of schemas still fit."""
        return {name: value for name, value in write(self).items() if value or name not in _LATER}


#: Fields that came after the first version; all are empty or false by default.
_LATER = frozenset({"unit", "boundary", "many", "aliases", "names"})


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

    Values are as written (``300 ml``); a boolean's are ``true`` and ``false``. As gold, several values are
    alternatives of which one is enough (the convention of the field's data sets), unless the attribute has ``many``.
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


def attribute_of(schema: Schema, example: Example, name: str) -> Attribute:
    """The schema's attribute of that name for a product; a `DataFault` if it has none."""
    try:
        return schema.attribute(name, example.category)
    except KeyError as error:
        raise DataFault(f"example {example.id}", error.args[0]) from None


def answer_schema(schema: Schema, example: Example) -> dict[str, Any]:
    """JSON schema of a teacher's answer: every attribute asked is a required key; null says absent.

    A number is a string (``"1,5 kg"``, ``"10-12"``): a JSON number would lose the unit and the way it is written,
    without which it cannot be found in the text again; and a string is what small models write of their own accord.
    """
    properties = {}
    for name in example.asked:
        value = _value_schema(schema.attribute(name, example.category))
        properties[name] = {"anyOf": [value, {"type": "null"}]}
    return closed_object(properties)


def _value_schema(attribute: Attribute) -> dict[str, Any]:
    """JSON schema of a value that is not absent."""
    if attribute.type == "boolean":
        return {"type": "boolean"}
    value: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": LONGEST}
    if attribute.options:
        value = {"type": "string", "enum": list(attribute.options)}
    if not attribute.many:
        return value
    return {"type": "array", "items": value, "minItems": 1, "maxItems": len(attribute.options) or MOST}


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
