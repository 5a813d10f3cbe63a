"""A run's results record: a JSON file that its command writes and nobody edits.

Reading is strict: a record that lacks a field, holds an unknown one or an impossible value is refused.
"""

from __future__ import annotations

import datetime
import json
import os
import re
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, FiniteFloat, ValidationError, model_validator

from ..tasks.record import Record
from ..tasks.task import DataFault
from .score import PRIMARY, Scores

R = TypeVar("R", bound=Record)

Text = Annotated[str, Field(min_length=1)]
Fraction = Annotated[FiniteFloat, Field(ge=0, le=1)]


class RecordFault(DataFault):
    """A results record or a claim that cannot be used: which file, what is wrong, what to do."""


class Measure(Record):
    """A metric as a fraction (not per cent) with the ends of its 95 % interval over test examples."""

    value: Fraction
    low: Fraction
    high: Fraction

    @model_validator(mode="after")
    def _in_order(self) -> Measure:
        if self.low > self.high:
            raise ValueError(f"the interval's ends are in the wrong order: {self.low} and {self.high}")
        return self


def _is_iso(date: str) -> str:
    datetime.date.fromisoformat(date)
    return date


class ResultRecord(Record):
    """One run: what was run, how, and what it scored.

    Attributes:
        name: the file's name without ``.json``.
        task, dataset, system, variant, seed: which run it is; ``examples["train"]`` too, for learning curves.
        command: what to type to have it again.
        revision: git revision of the code.
        backbone: models and their sizes, or "none".
        protocol: how it was judged, as `eval.score` says it.
        metrics: by name, the task's primary metric among them.
        counts: what was counted on the way (``unparseable``, ``context_tokens_cut``, ...).
        examples: how many by split (``train``, ``test``, ...).
        seconds: wall clock of the run.
        date: ISO date of the run.
        notes: what a reader must know; may be empty.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")]
    task: Text
    dataset: Text
    system: Text
    variant: Text
    seed: int
    command: Text
    revision: Text
    backbone: Text
    protocol: Text
    metrics: dict[str, Measure]
    counts: dict[str, int]
    examples: dict[str, int]
    seconds: Annotated[FiniteFloat, Field(ge=0)]
    date: Annotated[str, AfterValidator(_is_iso)]
    notes: str

    @model_validator(mode="after")
    def _has_primary(self) -> ResultRecord:
        if self.task not in PRIMARY:
            raise ValueError(f"unknown task {self.task!r}; there are: {', '.join(PRIMARY)}")
        if PRIMARY[self.task] not in self.metrics:
            raise ValueError(f"metrics lack {PRIMARY[self.task]!r}, the primary metric of {self.task}")
        return self

    @property
    def primary(self) -> Measure:
        """The task's primary metric."""
        return self.metrics[PRIMARY[self.task]]

    @property
    def run(self) -> tuple[str, str, str, str, int, int]:
        """What tells runs apart: task, data set, system, variant, training examples, seed."""
        return (self.task, self.dataset, self.system, self.variant, self.examples.get("train", 0), self.seed)


def measures(scores: Scores) -> dict[str, Measure]:
    """The metrics of some scores, as a record holds them."""
    return {name: Measure(**metric._asdict()) for name, metric in scores.metrics.items()}


def dataset_name(data: str, split: str) -> str:
    """What a record calls the data it was judged on: another split than ``test`` stands behind the name."""
    return data if split == "test" else f"{data} ({split})"


def slug(*parts: str | int) -> str:
    """A record's name out of its parts: letters, digits, dots, ``_`` and ``+`` stay, the rest is ``-``."""
    return "-".join(re.sub(r"[^A-Za-z0-9._+]+", "-", str(part)).strip("-+._") for part in parts)


def write(record: ResultRecord, folder: str | Path) -> Path:
    """Write a record as ``<folder>/<name>.json``; the same run run again replaces it. Returns the path."""
    path = Path(folder) / f"{record.name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".json.part")
    part.write_text(json.dumps(record.model_dump(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, path)
    return path


def read(path: str | Path) -> ResultRecord:
    """One record; a `RecordFault` that names the file and the fields at fault."""
    path = Path(path)
    record = validated(ResultRecord, path, load_json(path))
    if record.name != path.stem:
        raise RecordFault(str(path), f"its name is {record.name!r}", "file and name must agree: write it again")
    return record


def load_json(path: Path) -> Any:
    """A JSON file's content; a `RecordFault` if it cannot be read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecordFault(str(path), f"it cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise RecordFault(str(path), f"not JSON: {error}", "write it again by its command") from None


def validated(kind: type[R], path: Path, data: Any, prefix: str = "") -> R:
    """The record of that kind that the data is; a `RecordFault` that tells all its faults at once."""
    try:
        return kind.model_validate(data, strict=True)
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, e['loc'])) or 'record'}: {e['msg']}" for e in error.errors()]
        raise RecordFault(str(path), prefix + "; ".join(faults), "write it again by its command") from None
