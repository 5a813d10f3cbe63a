"""Multimodal knowledge graph completion (MKGC): an entity and a relation in, the missing entity ranked out."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from .graph import Entity, Ranking, Relation
from .images import Image
from .record import Record
from .task import Task, closed_object


class Schema(Record):
    """The relations of a graph."""

    relations: tuple[Relation, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """The relation names, in the schema's order."""
        return tuple(r.name for r in self.relations)

    def relation(self, name: str) -> Relation:
        """The relation of that name; a `KeyError` that says so, if there is none."""
        for relation in self.relations:
            if relation.name == name:
                return relation
        raise KeyError(f"unknown relation {name!r}")


class Answer(Ranking):
    """Ranked entity ids; as gold, the one that the triple names."""


class Example(Record):
    """A triple with one end missing: ``(given, relation, ?)`` if the tail is asked, else ``(?, relation, given)``.

    It describes itself: the given entity with its text and pictures, and the candidates, if any were drawn
    (see `candidates.shortlist`). ``context`` holds named texts beside it, for example ``knowledge``.
    """

    id: str
    given: Entity
    relation: Relation
    asked: Literal["tail", "head"] = "tail"
    candidates: tuple[Entity, ...] = ()
    context: dict[str, str] = Field(default_factory=dict)
    gold: Answer | None = None

    @property
    def text(self) -> str:
        """The question as one line: the triple with a question mark in place of what is asked."""
        title = self.relation.title or self.relation.name
        ends = (self.given.title, title, "?") if self.asked == "tail" else ("?", title, self.given.title)
        return " | ".join(ends)

    @property
    def images(self) -> tuple[Image, ...]:
        """The pictures of the given entity."""
        return self.given.images


def answer_schema(schema: Schema, example: Example) -> dict[str, Any]:
    """JSON schema of a teacher's answer: numbers of candidates (from 1), the most likely first."""
    number = {"type": "integer", "enum": list(range(1, len(example.candidates) + 1))}
    ranked = {"type": "array", "items": number, "minItems": 1, "maxItems": min(5, len(example.candidates))}
    return closed_object({"ranking": ranked})


TASK = Task(
    key="completion",
    title="multimodal knowledge graph completion",
    reads="a graph with text and images, (h, r, ?) or (?, r, t)",
    answers="ranked entities",
    Example=Example,
    Answer=Answer,
    Schema=Schema,
    answer_schema=answer_schema,
)
