"""What a task is, and the error that names what is wrong with its data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .record import Record


@dataclass(frozen=True)
class Task:
    """One of Magister's tasks, the same names for each.

    Attributes:
        key: the word used on the command line and in recipes, for example ``ner``.
        title: the task's name in prose.
        reads: what an example holds.
        answers: what an answer holds.
        Example, Answer, Schema: the task's record types.
        answer_schema: ``(schema, example) -> JSON schema`` of what a teacher is to answer; every string and list in it
            is bounded, since an unbounded grammar lets a model pad until its token limit.
    """

    key: str
    title: str
    reads: str
    answers: str
    Example: type[Record]
    Answer: type[Record]
    Schema: type[Record]
    answer_schema: Callable[[Any, Any], dict[str, Any]]


def closed_object(properties: dict[str, Any]) -> dict[str, Any]:
    """JSON schema of an object that has all of these properties, in this order, and no others."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


class DataFault(ValueError):
    """Bad input data: says which file, which line or example, what is wrong and what to do."""

    def __init__(self, where: str, problem: str, remedy: str = "") -> None:
        self.where, self.problem, self.remedy = where, problem, remedy
        super().__init__(f"{where}: {problem}" + (f" ({remedy})" if remedy else ""))
