"""Products asked of a distilled student: the same face and the same rows as with a teacher."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ..tasks.attributes import Example, Schema
from ..teachers.ledger.ledger import Ledger
from .counts import Counts
from .rows import Outcome

#: What may be wrong with one product, by the error's name; anything else is wrong with the student or the question.
FAULTS = {"ImageFault": "image", "DataFault": "data", "TooLong": "too_long"}


class ByStudent:
    """Asks a student.

    Args:
        student: a trained student, or its run folder.
    """

    def __init__(self, student: Any) -> None:
        self._folder = Path(student) if isinstance(student, str | Path) else None
        if self._folder is not None:
            from ..distill.evaluate import load

            student, _ = load(self._folder)
        self.student = student
        self.schema: Schema = student.schemas["attributes"]

    def settings(self) -> dict[str, Any]:
        """What decides the answers: the student's files by their content, or its class."""
        return {"student": _digest(self._folder / "best") if self._folder else type(self.student).__name__}

    def answers(
        self, examples: Sequence[Example], counts: Counts, ledger: Ledger | None = None, retry_failed: bool = False
    ) -> list[Outcome]:
        """An outcome an example, in their order. Neither ledger nor retry mean anything to a student."""
        return list(self._answers(examples, counts)) if examples else []

    def close(self) -> None:
        """Nothing is held."""

    def _answers(self, examples: Sequence[Example], counts: Counts) -> Iterator[Outcome]:
        try:
            found = self.student.predict(examples, return_scores=True)
        except ValueError as error:
            if type(error).__name__ not in FAULTS:
                raise
            if len(examples) == 1:
                yield Outcome(examples[0], None, {}, FAULTS[type(error).__name__], str(error))
                return
            half = len(examples) // 2  # one bad product must not spoil the others
            yield from self._answers(examples[:half], counts)
            yield from self._answers(examples[half:], counts)
            return
        counts.notes.update(getattr(self.student, "given_up", {}))
        for example, (answer, scores) in zip(examples, found, strict=True):
            yield Outcome(example, answer, scores)


def _digest(folder: Path) -> str:
    """One SHA-256 over the files of a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(path.relative_to(folder).as_posix().encode())
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
