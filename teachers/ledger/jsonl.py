"""Texts by example out of JSON lines, plain or gzipped: ``{"id": ..., "text": ...}`` or the like."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...tasks.task import DataFault

#: Names under which imported lines may hold their example's id and their text, tried in this order.
ID_FIELDS = ("id", "image_id", "example", "tweet_id")
TEXT_FIELDS = ("text", "knowledge", "caption", "rationale")


@dataclass
class Texts:
    """What a file holds: ``lines = len(texts) + len(faults) + repeated + contradicted``, without blank lines.

    Attributes:
        texts: text by id; the first line of an id counts.
        faults: lines that could not be read, by number.
        repeated: lines that said the same of the same id once more.
        contradicted: lines that said something else of an id already there.
    """

    texts: dict[str, str] = field(default_factory=dict)
    faults: list[DataFault] = field(default_factory=list)
    lines: int = 0
    repeated: int = 0
    contradicted: int = 0

    @property
    def rows(self) -> int:
        """How many ids have a text."""
        return len(self.texts)


def read(file: Path, id_field: str | None = None, text_field: str | None = None) -> Texts:
    """Every line's id and text, the first line of an id winning.

    Args: id_field, text_field: the fields' names; left out, the first of `ID_FIELDS` and of `TEXT_FIELDS`
        that a line has.

    Raises:
        DataFault: the file cannot be read, or no line of it.
    """
    found = Texts()
    try:
        with gzip.open(file) if file.suffix == ".gz" else open(file, "rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    found.lines += 1
                    _take(found, line, f"{file} line {number}", id_field, text_field)
    except (OSError, EOFError, zlib.error) as error:
        remedy = "a .jsonl or .jsonl.gz file in UTF-8 is needed"
        raise DataFault(str(file), f"cannot be read: {error}", remedy) from None
    if not found.texts:
        first = f"; the first fault: {found.faults[0]}" if found.faults else ""
        raise DataFault(str(file), f"not one of its {found.lines:,} lines holds an id and a text{first}")
    return found


def _take(found: Texts, line: bytes, where: str, id_field: str | None, text_field: str | None) -> None:
    try:
        data = _object(line, where)
        id_field = id_field or _first_of(ID_FIELDS, data, where, "id_field")
        text_field = text_field or _first_of(TEXT_FIELDS, data, where, "text_field")
        example, text = _pair(data, id_field, text_field, where)
    except DataFault as fault:
        found.faults.append(fault)
        return
    if example not in found.texts:
        found.texts[example] = text
    elif found.texts[example] == text:
        found.repeated += 1
    else:
        found.contradicted += 1


def _object(line: bytes, where: str) -> dict[str, Any]:
    try:
        data = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise DataFault(where, f"no JSON: {error}") from None
    if not isinstance(data, dict):
        raise DataFault(where, f"a JSON object is needed, this is a {type(data).__name__}")
    return data


def _first_of(names: Sequence[str], data: Mapping[str, Any], where: str, option: str) -> str:
    for name in names:
        if name in data:
            return name
    raise DataFault(where, f"none of the fields {', '.join(names)}", f"name yours with {option}: {', '.join(data)}")


def _pair(data: Mapping[str, Any], id_field: str, text_field: str, where: str) -> tuple[str, str]:
    for name in (id_field, text_field):
        if name not in data:
            raise DataFault(where, f"no field {name!r}", f"it has: {', '.join(data)}")
    example, text = data[id_field], data[text_field]
    if isinstance(example, bool) or not isinstance(example, str | int) or example == "":
        raise DataFault(where, f"the id {example!r} is neither a text nor a whole number")
    if not isinstance(text, str):
        raise DataFault(where, f"the field {text_field!r} is a {type(text).__name__}, a text is needed")
    return str(example), text
