"""Our own JSON lines: one example a line, the schema in the first line or in ``schema.json``."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from .. import TASKS
from ..dataset import Dataset
from ..record import Record
from ..task import DataFault
from .rows import Rows, numbered_lines, reason, where

HEADER_FILE = "schema.json"
_FORM = 'a line like {"task": "ner", "schema": {"types": [{"name": "PER", "title": ..., "guideline": ...}]}}'


class Header(Record):
    """What a file is about: its task and label set; ``splits`` keeps the order and the empty ones."""

    name: str = ""
    task: str
    labels: dict[str, Any] = Field(alias="schema")
    splits: tuple[str, ...] = ()
    notes: dict[str, int] = Field(default_factory=dict)


def recognise(folder: Path) -> str | None:
    """``jsonl`` if the folder has a ``schema.json`` of ours and JSON lines beside it."""
    try:
        Header.model_validate_json((folder / HEADER_FILE).read_bytes())
    except (OSError, ValidationError):
        return None
    return "jsonl" if any(folder.glob("*.jsonl")) else None


def write(dataset: Dataset, path: Path | str) -> None:
    """Write a data set into one ``.jsonl`` file that `read` gives back exactly.

    A picture that is a file is named by its path relative to the folder of ``path``. Refused rows
    (``faults``) are no data and are not written, and ``graphs`` are not, either: an example describes itself.
    """
    path = Path(path)
    header = {
        "name": dataset.name,
        "task": dataset.task,
        "schema": dataset.schema.model_dump(mode="json", exclude_defaults=True),
        "splits": list(dataset.splits),
        "notes": dataset.notes,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    with unfinished.open("w", encoding="utf-8", newline="\n") as file:
        file.write(_line(header))
        for split, examples in dataset.splits.items():
            for example in examples:
                file.write(_line({"split": split, **_to_line(example, path.parent)}))
    unfinished.replace(path)


def read(source: Path | str, name: str = "jsonl") -> Dataset:
    """Read a ``.jsonl`` file, or every ``.jsonl`` file of a folder.

    A line is an example's fields, and may name its ``split``; without it the split is called as the file is
    (``train.jsonl``). A picture is a path relative to the file, a data URL, or an object as `Image` has it.

    Raises:
        DataFault: no file, or no valid header in the first line or in ``schema.json``. A bad line is no
            error: it is in the data set's ``faults``, and the rest is read.
    """
    source = Path(source)
    files = sorted(source.glob("*.jsonl")) if source.is_dir() else [source]
    if not files:
        raise DataFault(str(source), "no .jsonl file in the folder")
    rows: Rows | None = None
    for path in files:
        header, lines = _open(path)
        schema = _schema(header, path)
        if rows is None:
            rows = Rows(header.name or name, header.task, schema, header.splits)
            rows.notes.update(header.notes)
        elif (rows.task, rows.schema) != (header.task, schema):
            raise DataFault(
                str(path),
                f"another task or schema than {files[0].name}",
                "one folder, one schema",
            )
        for number, line in lines:
            if line.strip():
                with rows.row(where(path, number)):
                    _add(rows, path, number, line)
    assert rows is not None
    return rows.dataset()


def _line(data: dict[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False) + "\n"


def _open(path: Path) -> tuple[Header, Iterator[tuple[int, str]]]:
    """The header and the lines that hold examples."""
    lines = numbered_lines(path)
    first = next(lines, (1, ""))
    beside = path.parent / HEADER_FILE
    if _is_header(first[1]):
        place, text, rest = where(path, 1), first[1], lines
    elif beside.is_file():
        place, text = str(beside), beside.read_text(encoding="utf-8", errors="replace")
        rest = (line for part in ((first,), lines) for line in part)
    else:
        raise DataFault(where(path, 1), f"no schema there and no {HEADER_FILE} beside it", f"give {_FORM}")
    try:
        return Header.model_validate_json(text), rest
    except ValidationError as error:
        raise DataFault(place, f"not a header: {reason(error)}", f"give {_FORM}") from None


def _is_header(line: str) -> bool:
    try:
        return "schema" in json.loads(line)
    except (ValueError, TypeError, RecursionError):
        return False


def _schema(header: Header, path: Path) -> Any:
    if header.task not in TASKS:
        raise DataFault(str(path), f"unknown task {header.task!r}", f"there are: {', '.join(TASKS)}")
    try:
        return TASKS[header.task].Schema.model_validate(header.labels)
    except ValidationError as error:
        raise DataFault(str(path), f"no schema of the task {header.task}: {reason(error)}") from None


def _add(rows: Rows, path: Path, number: int, line: str) -> None:
    place = where(path, number)
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataFault(place, f"not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise DataFault(place, "not a JSON object", "one example a line")
    split = fields.pop("split", path.stem)
    if not isinstance(split, str) or not split:
        raise DataFault(place, "split is no name")
    for owner in _pictured(fields):
        owner["images"] = [_image(one, path.parent, owner.get("id")) for one in owner["images"]]
    rows.take(split, place, TASKS[rows.task].Example.model_validate(fields))


def _image(given: Any, folder: Path, example: Any) -> Any:
    """The fields of an `Image`: a string is its source; its example is its owner's id unless it names one."""
    fields = {"source": given} if isinstance(given, str) else given
    if not isinstance(fields, dict) or not isinstance(fields.get("source"), str):
        return given  # left as it is for the example's own check to refuse
    source = fields["source"]
    if not source.startswith("data:"):
        source = os.path.abspath(folder / source)
    return {"example": example, **fields, "source": source}


def _pictured(fields: dict[str, Any]) -> list[dict[str, Any]]:
    """Whatever holds a list of pictures: the example, the entity it is about, its candidates."""
    candidates = fields.get("candidates")
    owners = [fields, fields.get("given"), fields.get("entity"), *(candidates if isinstance(candidates, list) else [])]
    return [one for one in owners if isinstance(one, dict) and isinstance(one.get("images"), list)]


def _to_line(example: Any, folder: Path) -> dict[str, Any]:
    fields = example.model_dump(mode="json", exclude_defaults=True)
    for owner in _pictured(fields):
        owner["images"] = [_image_to_line(image, folder, owner["id"]) for image in owner["images"]]
    return fields


def _image_to_line(image: dict[str, str], folder: Path, owner: str) -> Any:
    source, example = image["source"], image.get("example", "")
    if not source.startswith("data:"):
        source = Path(os.path.relpath(source, folder)).as_posix()
    return source if example == owner else {"source": source, "example": example}
