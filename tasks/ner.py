"""Multimodal named entity recognition (MNER): text and images in, typed spans out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Protocol

from pydantic import Field, model_validator

from .images import Image
from .record import Record
from .task import Task, closed_object


class EntityType(Record):
    """One entity type: its label in the data, its name in prose and its annotation guideline."""

    name: str
    title: str
    guideline: str


class Schema(Record):
    """The entity types of a data set with their guidelines."""

    types: tuple[EntityType, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The type names, in the schema's order."""
        return tuple(t.name for t in self.types)


class Entity(Record):
    """A typed span: characters ``start`` to ``end`` (exclusive) of the text, or None where it was not found there."""

    text: str
    type: str
    start: int | None = None
    end: int | None = None


class Answer(Record):
    """The entities of one text, in reading order."""

    entities: tuple[Entity, ...] = ()


class Example(Record):
    """A post: its text, its words where the data set gives them, its pictures and its gold entities.

    ``words`` (if any) joined by single blanks are the text. ``context`` holds named texts beside the text, for
    example ``caption`` or ``knowledge``; which of them a student reads is said by its recipe.
    """

    id: str
    text: str = Field(min_length=1)
    words: tuple[str, ...] = ()
    images: tuple[Image, ...] = ()
    context: dict[str, str] = Field(default_factory=dict)
    gold: Answer | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Example:
        if self.words and " ".join(self.words) != self.text:
            raise ValueError(f"example {self.id}: the words joined by blanks are not the text")
        for entity in self.gold.entities if self.gold else ():
            if entity.start is None or self.text[entity.start : entity.end] != entity.text:
                raise ValueError(f"example {self.id}: gold entity {entity.text!r} is not the text at its offsets")
        return self


_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")


class Worded(Protocol):
    """A text, and its words where its data set gives them."""

    @property
    def text(self) -> str: ...

    @property
    def words(self) -> Sequence[str]: ...


def word_spans(example: Worded) -> list[tuple[int, int]]:
    """Character spans of the words: the data set's own words, else runs of letters and single marks."""
    if not example.words:
        return [m.span() for m in _WORD.finditer(example.text)]
    spans, at = [], 0
    for word in example.words:
        spans.append((at, at + len(word)))
        at += len(word) + 1
    return spans


def words_inside(spans: Sequence[tuple[int, int]], start: int, end: int) -> list[int]:
    """Which words, given by their character spans, the characters ``start`` to ``end`` touch."""
    return [word for word, (first, last) in enumerate(spans) if first < end and start < last]


def answer_schema(schema: Schema, example: Example) -> dict[str, Any]:
    """JSON schema of a teacher's answer: a bounded list of mentions with a type out of the schema."""
    entity = closed_object(
        {
            "text": {"type": "string", "minLength": 1, "maxLength": 120},
            "type": {"type": "string", "enum": list(schema.labels)},
        }
    )
    return closed_object({"entities": {"type": "array", "items": entity, "maxItems": 20}})


TASK = Task(
    key="ner",
    title="multimodal named entity recognition",
    reads="text, images, entity types with guidelines",
    answers="typed spans",
    Example=Example,
    Answer=Answer,
    Schema=Schema,
    answer_schema=answer_schema,
)
