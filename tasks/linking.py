"""Multimodal entity linking (MEL): a mention in its text and picture in, an entity of a knowledge base or NIL out."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from .graph import Entity, Ranking, numbered_choice
from .images import Image
from .ner import Entity as Mention
from .record import Record
from .task import Task


class Schema(Record):
    """Which knowledge base is meant, what it holds, and whether a mention may have no entry there (NIL)."""

    knowledge_base: str
    guideline: str = ""
    nil: bool = False


class Link(Record):
    """A mention that was detected, and what it was linked to."""

    mention: Mention
    entity: Ranking


class Answer(Ranking):
    """Ranked entity ids for the mention given (empty: NIL), or the links of a text in which none was given."""

    links: tuple[Link, ...] = ()


class Example(Record):
    """A text with a mention whose entity is asked, or without one: mentions are to be detected, too.

    ``candidates`` are entries of the knowledge base, if any were drawn (see `candidates.shortlist`).
    """

    id: str
    text: str = Field(min_length=1)
    mention: Mention | None = None
    images: tuple[Image, ...] = ()
    candidates: tuple[Entity, ...] = ()
    context: dict[str, str] = Field(default_factory=dict)
    gold: Answer | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Example:
        links = self.gold.links if self.gold else ()
        for mention in (*((self.mention,) if self.mention else ()), *(link.mention for link in links)):
            if mention.start is None or self.text[mention.start : mention.end] != mention.text:
                raise ValueError(f"example {self.id}: mention {mention.text!r} is not the text at its offsets")
        return self


def answer_schema(schema: Schema, example: Example) -> dict[str, Any]:
    """JSON schema of a teacher's answer: the number of a candidate, 0 for NIL where the schema allows it."""
    return numbered_choice(example.candidates, none=schema.nil)


TASK = Task(
    key="linking",
    title="multimodal entity linking",
    reads="text, image, mention (or none: detect), a knowledge base",
    answers="entity or NIL",
    Example=Example,
    Answer=Answer,
    Schema=Schema,
    answer_schema=answer_schema,
)
