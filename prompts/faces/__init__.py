"""One module a task: all that this room knows of it. The same names in each, so that who has read one knows six."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from ...tasks import TASKS
from ...tasks.images import Image
from ...tasks.record import Record
from ...tasks.task import Task
from ..faults import Parsed


class Face(Protocol):
    """What a module of this folder holds; nothing else in the room asks which task it has before it.

    Attributes:
        VARIABLES: names that its templates may use beside those of every task.
        SUBJECTS: what its templates may ask about one by one, via ``needs`` (the entities of a post).
    """

    VARIABLES: frozenset[str]
    SUBJECTS: frozenset[str]

    def subjects(self, needs: Sequence[str], example: Any) -> Sequence[Any]:
        """What a template with these needs asks about one by one; a single None: it asks about the whole example."""

    def fields(self, example: Any) -> dict[str, Any]:
        """What the example's view has beside text, context and pictures."""

    def variables(self, example: Any, schema: Any, place: Callable[[Image], str]) -> dict[str, Any]:
        """Values of `VARIABLES` as plain copies, for the example or (as ``shown.NAME``) for a demonstration.

        ``place`` gives the mark of a picture that is not the example's own (a candidate's), which a template may
        leave out.
        """

    def said(self, example: Any) -> str:
        """The text that every prompt about the example must hold."""

    def as_json(self, answer: Any, example: Any, schema: Any = None) -> str:
        """The answer in the one-line JSON that a teacher is to give (of several gold alternatives, the first).

        The schema says of which values there are several, and of what type they are; without it all are single texts.
        ``example`` is None where a task's answers say all by themselves. An `InputFault` for an answer that is not
        among the example's candidates.
        """

    def claims(self, schema: Any, answer: Any, example: Any) -> tuple[str, ...]:
        """The answer as statements that can be judged one by one; at least one, also for an empty answer.

        An `InputFault` for an answer that is not among the example's candidates.
        """

    def questions(self, schema: Any, example: Any) -> dict[str, tuple[str, ...]]:
        """Reading questions by label, in the same number of wordings; of the whole schema if the example is None."""

    def fits(self, value: Any) -> bool:
        """Whether a JSON value may be an answer at all."""

    def lines(self, body: str, example: Any, schema: Any, repairs: list[str]) -> Any:
        """The line form as a JSON value for `read`, names of repairs added; raises `Wrong` where it is none."""

    def read(self, value: Any, example: Any, schema: Any, repairs: list[str]) -> Parsed:
        """The answer that a JSON value gives, names of repairs added to ``repairs``; raises `Wrong`."""

    def probes(self) -> list[tuple[Any, Any]]:
        """Examples with their schemas such as a run may meet: hostile, without gold, with empty gold, two pictures."""


def face(task: str | Task) -> Face:
    """The face of a task; a `KeyError` that lists the tasks, if there is none of that key."""
    key = task if isinstance(task, str) else task.key
    if key not in TASKS:
        raise KeyError(f"unknown task {key!r}; there are: {', '.join(TASKS)}")
    return cast(Face, importlib.import_module(f"{__name__}.{key}"))


def face_of(record: Record) -> Face:
    """The face of the task to which an example or an answer belongs."""
    for key, task in TASKS.items():
        if isinstance(record, (task.Example, task.Answer)):
            return face(key)
    raise TypeError(f"no task has examples or answers that are a {type(record).__name__}")
