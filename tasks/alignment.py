"""Multimodal entity alignment (MEA): an entity of one graph in, its counterpart in the other ranked out."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from .graph import Entity, Ranking, numbered_choice
from .images import Image
from .record import Record
from .task import Task


class Schema(Record):
    """What the two graphs are called and, in a word, what they hold."""

    left: str
    right: str
    guideline: str = ""


class Answer(Ranking):
    """Ranked ids of the other graph; empty says that it has no counterpart there."""


class Example(Record):
    """An entity of the left graph whose counterpart in the right one is asked.

    ``facts`` are triples about it in words, for teachers and text encoders; ``candidates`` entities of the right
    graph, if any were drawn (see `candidates.shortlist`), and ``candidate_facts`` theirs, in parallel.
    """

    id: str
    entity: Entity
    facts: tuple[str, ...] = ()
    candidates: tuple[Entity, ...] = ()
    candidate_facts: tuple[tuple[str, ...], ...] = ()
    context: dict[str, str] = Field(default_factory=dict)
    gold: Answer | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Example:
        if self.candidate_facts and len(self.candidate_facts) != len(self.candidates):
            given = f"{len(self.candidate_facts)} lists of facts for {len(self.candidates)} candidates"
            raise ValueError(f"example {self.id}: {given}")
        return self

    @property
    def text(self) -> str:
        """The entity's name, or its id where it has none."""
        return self.entity.title

    @property
    def images(self) -> tuple[Image, ...]:
        """The entity's pictures."""
        return self.entity.images


def answer_schema(schema: Schema, example: Example) -> dict[str, Any]:
    """JSON schema of a teacher's answer: the number of a candidate, 0 for none of them."""
    return numbered_choice(example.candidates, none=True)


TASK = Task(
    key="alignment",
    title="multimodal entity alignment",
    reads="two graphs, seed pairs",
    answers="pairs",
    Example=Example,
    Answer=Answer,
    Schema=Schema,
    answer_schema=answer_schema,
)
