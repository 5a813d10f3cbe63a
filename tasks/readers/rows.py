"""What every reader shares: numbered lines, rows gathered by split, bad rows kept as named faults."""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from .. import TASKS
from ..attributes import Attribute
from ..dataset import Dataset
from ..record import Record
from ..task import DataFault

T = TypeVar("T", bound=Record)


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a UTF-8 file (gzipped if it is called ``.gz``), counted from 1, without their ends.

    Only ``\\n`` and ``\\r\\n`` end a line: posts may hold other characters that `str.splitlines` breaks at.

    Raises:
        DataFault: the file is missing, not UTF-8, or a broken gzip file.
    """
    opened = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opened(path, "rb") as file:
            for number, line in enumerate(file, 1):
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8").rstrip("\r\n")
    except FileNotFoundError:
        raise DataFault(str(path), "there is no such file") from None
    except UnicodeDecodeError:
        raise DataFault(f"{path}, line {number}", "not UTF-8", "save the file as UTF-8") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataFault(str(path), f"cannot be read: {error}") from None


def json_file(path: Path) -> Any:
    """What a JSON file holds, gzipped if it is called ``.gz``; a `DataFault` where it is missing or none."""
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            return json.load(file)
    except FileNotFoundError:
        raise DataFault(str(path), "there is no such file") from None
    except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
        raise DataFault(str(path), f"not {'gzipped ' if packed else ''}JSON: {error}") from None


def where(path: Path, line: int) -> str:
    """How a fault names a line of a file."""
    return f"{path}, line {line}"


def reason(error: ValidationError) -> str:
    """A validation error in one line: each field with what is wrong about it."""
    found = []
    for one in error.errors(include_url=False, include_input=False):
        field = ".".join(str(part) for part in one["loc"])
        problem = one["msg"].removeprefix("Value error, ")
        found.append(f"{field}: {problem}" if field else problem)
    return "; ".join(found)


def json_rows(path: Path, record: type[T], faults: list[DataFault]) -> Iterator[tuple[int, T]]:
    """Each JSON line as a record with its number; lines that are none are appended to ``faults``."""
    for number, line in numbered_lines(path):
        if line.strip():
            try:
                yield number, record.model_validate_json(line)
            except ValidationError as error:
                faults.append(DataFault(where(path, number), reason(error)))


class Rows:
    """The rows of one data set while it is read: examples by split, refused rows, counted remarks."""

    def __init__(self, name: str, task: str, schema: Any, splits: Iterable[str] = ()) -> None:
        self.name, self.task, self.schema = name, task, schema
        self.splits: dict[str, list[Any]] = {split: [] for split in splits}
        self.faults: list[DataFault] = []
        self.notes: Counter[str] = Counter()
        self._seen: dict[str, str] = {}
        self._attributes: dict[tuple[str, str], Attribute] = {}

    @contextmanager
    def row(self, place: str) -> Iterator[None]:
        """Inside it a bad row becomes a fault that names its place, and the rest goes on."""
        try:
            yield
        except DataFault as fault:
            self.faults.append(fault)
        except ValidationError as error:
            self.faults.append(DataFault(place, reason(error)))

    def add(self, split: str, place: str, **fields: Any) -> None:
        """Build an example and put it into a split.

        Raises:
            DataFault: blank text, an id used before, a label, attribute or relation that the schema does not have.
            ValidationError: the fields are not those of the task's example.
        """
        self.take(split, place, TASKS[self.task].Example(**fields))

    def take(self, split: str, place: str, example: Any) -> None:
        """Put a finished example into a split; errors as `add`."""
        if not example.text.strip():
            raise DataFault(place, f"example {example.id}: the text is empty")
        if example.id in self._seen:
            raise DataFault(place, f"the id {example.id!r} is used twice", f"first: {self._seen[example.id]}")
        checks = {"ner": self._check_entities, "attributes": self._check_values, "relations": self._check_relations,
                  "completion": self._check_relations}  # fmt: skip
        if check := checks.get(self.task):
            check(place, example)
        self._seen[example.id] = place
        self.splits.setdefault(split, []).append(example)

    def dataset(self) -> Dataset:
        """Everything read, as a `Dataset`."""
        splits = {name: tuple(examples) for name, examples in self.splits.items()}
        notes = {key: count for key, count in self.notes.items() if count}
        return Dataset(self.name, self.task, self.schema, splits, tuple(self.faults), notes)

    def _check_entities(self, place: str, example: Any) -> None:
        labels = self.schema.labels
        for entity in example.gold.entities if example.gold else ():
            if entity.type not in labels:
                raise DataFault(place, f"unknown label {entity.type!r}", f"there are: {', '.join(labels)}")

    @cached_property
    def _relations(self) -> frozenset[str]:
        return frozenset(self.schema.labels)

    def _check_relations(self, place: str, example: Any) -> None:
        if self.task == "completion":
            named = [example.relation.name]
        else:
            gold = example.gold
            named = [triple.relation for triple in gold.triples] if gold else []
            if gold and gold.relation not in (None, self.schema.none):
                named.append(gold.relation)
        for name in named:
            if name not in self._relations:
                raise DataFault(place, f"unknown relation {name!r}", f"the schema has {len(self._relations)} others")

    def _check_values(self, place: str, example: Any) -> None:
        gold = example.gold.values if example.gold else {}
        for name in dict.fromkeys((*example.asked, *gold)):
            attribute = self._attribute(place, name, example.category)
            for value in gold.get(name, ()) if attribute.choices else ():
                if value not in attribute.choices:
                    raise DataFault(
                        place,
                        f"{name} {value!r} is none of its options",
                        f"they are: {', '.join(attribute.choices)}",
                    )

    def _attribute(self, place: str, name: str, category: str) -> Attribute:
        if (name, category) not in self._attributes:
            try:
                self._attributes[name, category] = self.schema.attribute(name, category)
            except KeyError as error:
                raise DataFault(place, str(error.args[0])) from None
        return self._attributes[name, category]
