"""Multimodal relation extraction (MRE): text and images in, the relation of a pair or all triples out."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from .images import Image
from .ner import Entity
from .record import Record
from .task import Task, closed_object


class RelationType(Record):
    """One relation: its label in the data, its name in prose, its annotation guideline and the types it joins."""

    name: str
    title: str
    guideline: str
    head: str = ""
    tail: str = ""


class Schema(Record):
    """The relations of a data set with their guidelines; ``none`` is the label of a pair that has none."""

    relations: tuple[RelationType, ...]
    none: str = "None"

    @property
    def labels(self) -> tuple[str, ...]:
        """The relation names in the schema's order, without ``none``."""
        return tuple(r.name for r in self.relations)


class Triple(Record):
    """Two mentions and the relation from the first to the second."""

    head: Entity
    relation: str
    tail: Entity


class Answer(Record):
    """The relation of the pair that was given (``none``'s label where it has none), or the triples of a text."""

    relation: str | None = None
    triples: tuple[Triple, ...] = ()


class Example(Record):
    """A post with a pair of entities whose relation is asked, or without one: all triples are asked.

    ``words`` (if any) joined by single blanks are the text. ``context`` holds named texts beside the text. A
    mention's type is empty where the data set does not say it.
    """

    id: str
    text: str = Field(min_length=1)
    words: tuple[str, ...] = ()
    pair: tuple[Entity, Entity] | None = None
    images: tuple[Image, ...] = ()
    context: dict[str, str] = Field(default_factory=dict)
    gold: Answer | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Example:
        if self.words and " ".join(self.words) != self.text:
            raise ValueError(f"example {self.id}: the words joined by blanks are not the text")
        triples = self.gold.triples if self.gold else ()
        for mention in (*(self.pair or ()), *(m for t in triples for m in (t.head, t.tail))):
            if mention.start is None or self.text[mention.start : mention.end] != mention.text:
                raise ValueError(f"example {self.id}: mention {mention.text!r} is not the text at its offsets")
        if self.gold and (self.gold.relation is None) != (self.pair is None):
            raise ValueError(f"example {self.id}: gold is one relation where a pair is given, and only there")
        if self.gold and self.pair and triples:
            raise ValueError(f"example {self.id}: triples are asked only where no pair is given")
        return self


def answer_schema(schema: Schema, example: Example) -> dict[str, Any]:
    """JSON schema of a teacher's answer: one label for a given pair, else a bounded list of triples."""
    mention = {"type": "string", "minLength": 1, "maxLength": 120}
    if example.pair is not None:
        properties: dict[str, Any] = {"relation": {"type": "string", "enum": [*schema.labels, schema.none]}}
    else:
        relation = {"type": "string", "enum": list(schema.labels)}
        triple = closed_object({"head": mention, "relation": relation, "tail": mention})
        properties = {"triples": {"type": "array", "items": triple, "maxItems": 10}}
    return closed_object(properties)


TASK = Task(
    key="relations",
    title="multimodal relation extraction",
    reads="text, images, an entity pair (or none: joint)",
    answers="the pair's relation, or triples",
    Example=Example,
    Answer=Answer,
    Schema=Schema,
    answer_schema=answer_schema,
)
