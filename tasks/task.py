"""What a task is, and what a data set of it holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
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


class DataFault(ValueError):
    """Bad input data: says which file, which line or example, what is wrong and what to do."""

    def __init__(self, where: str, problem: str, remedy: str = "") -> None:
        self.where, self.problem, self.remedy = where, problem, remedy
        super().__init__(f"{where}: {problem}" + (f" ({remedy})" if remedy else ""))


@dataclass(frozen=True)
class Dataset:
    """A data set as a reader leaves it: examples by split, the schema, and what could not be read.

    Attributes:
        name: the reader's name for it, for example ``twitter2017``.
        task: the task's key.
        schema: the label set with its guidelines.
        splits: split name (``train``, ``valid``, ``test``) to its examples, in file order.
        faults: the rows that were refused, by name; in = examples + faults.
        notes: counted remarks (``orphan_i_tags``: 53), printed beside the counts.
    """

    name: str
    task: str
    schema: Any
    splits: dict[str, tuple[Any, ...]]
    faults: tuple[DataFault, ...] = ()
    notes: dict[str, int] = field(default_factory=dict)

    def split(self, name: str) -> tuple[Any, ...]:
        """The examples of one split; a `DataFault` that lists the splits there are, if it has none of that name."""
        if name not in self.splits:
            raise DataFault(self.name, f"no split {name!r}", f"there are: {', '.join(self.splits)}")
        return self.splits[name]
