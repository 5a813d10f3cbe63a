"""Schemas of attributes out of what people have: JSON Schema, pydantic, NuExtract templates, CSV, our own dump."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.errors import PydanticUserError

from . import json_schema, nuextract
from .attributes import Attribute, Schema, ValueType
from .json_schema import Found
from .readers.rows import reason
from .task import DataFault

log = logging.getLogger(__name__)

#: The columns of a CSV file; ``name`` has to be there. In those of the second row ``|`` parts several.
_ONE = ("name", "type", "description", "unit", "boundary", "many")
_SEVERAL = ("options", "examples", "aliases", "categories")
_YES, _NO = ("true", "yes", "1", "x"), ("", "false", "no", "0")


class BadSchema(DataFault):
    """A schema that cannot be used: lists every mistake, each with its place."""

    def __init__(self, where: str, mistakes: Sequence[str]) -> None:
        self.mistakes = tuple(mistakes)
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__(where, "\n".join([count, *(f"  - {m}" for m in mistakes)]))


def read_schema(source: Schema | type[BaseModel] | Mapping[str, Any] | str | Path) -> Schema:
    """The schema that a file, a dict or a pydantic model class describes.

    A dict (or a ``.json`` file) is our own dump if it has nothing but ``attributes``, a list of attributes; JSON Schema
    if `json_schema.looks_like` one; else a NuExtract template. A ``.csv`` file has one attribute a line, under the
    columns name, type, description, options, examples, unit, boundary, many, aliases, categories, of which name alone
    is needed; ``|`` in a cell parts several. Objects in objects are flattened (``size.width``), lists of objects
    refused. Keywords of JSON Schema that nothing here enforces (``maximum``, ``pattern``) are named in a warning.

    Raises:
        BadSchema: lists every mistake with its place.
        DataFault: the file is missing, or neither ``.json`` nor ``.csv``.
    """
    if isinstance(source, Schema):
        return source
    if isinstance(source, Mapping):
        return _finished("schema", _of_document(source))
    if isinstance(source, type):
        return _of_model(source)
    path = Path(source)
    readers = {".json": _of_json, ".csv": _of_csv}
    if path.suffix.lower() not in readers:
        raise DataFault(str(path), "a schema is a .json or a .csv file", "JSON Schema, a NuExtract template or a table")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataFault(str(path), "there is no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataFault(str(path), f"cannot be read: {error}", "save it as UTF-8") from None
    return _finished(str(path), readers[path.suffix.lower()](text))


def to_json_schema(schema: Schema, names: Iterable[str], category: str = "") -> dict[str, Any]:
    """JSON Schema of some attributes of a category, which `read_schema` reads back."""
    return json_schema.write(schema, names, category)


def to_nuextract(schema: Schema, names: Iterable[str] | None = None, category: str = "") -> dict[str, Any]:
    """The NuExtract template of some attributes (or all) of a category: names and types, which is all it can hold."""
    return nuextract.write(schema, [a.name for a in schema.of(category)] if names is None else names, category)


# --- the forms ---


def _of_model(model: type[Any]) -> Schema:
    where = f"class {model.__name__}"
    if not issubclass(model, BaseModel):
        raise BadSchema(where, ["not a pydantic model; derive it from pydantic.BaseModel"])
    try:
        document = model.model_json_schema()
    except PydanticUserError as error:
        raise BadSchema(where, [f"pydantic can make no JSON Schema of it: {str(error).splitlines()[0]}"]) from None
    return _finished(where, json_schema.read(document))


def _of_document(document: Mapping[str, Any]) -> Found:
    own = document.get("attributes")
    if set(document) == {"attributes"} and isinstance(own, list | tuple) and all(isinstance(one, dict) for one in own):
        return Found([(f"attributes[{number}]", dict(one)) for number, one in enumerate(own)])
    return json_schema.read(document) if json_schema.looks_like(document) else nuextract.read(document)


def _of_json(text: str) -> Found:
    twice: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in items]
        twice.extend(
            f"the key {key!r} stands twice in one object" for key in sorted({k for k in keys if keys.count(k) > 1})
        )
        return dict(items)

    try:
        document = json.loads(text, object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        return Found(mistakes=[f"not JSON: {error}"])
    if not isinstance(document, dict):
        return Found(mistakes=["not a JSON object"])
    found = _of_document(document)
    found.mistakes[:0] = twice
    return found


def _of_csv(text: str) -> Found:
    found = Found()
    lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [column.strip().lower() for column in next(lines, [])]
        unknown = [column for column in header if column not in (*_ONE, *_SEVERAL)]
        if unknown or "name" not in header or len(set(header)) < len(header):
            what = (
                f"unknown columns {', '.join(map(repr, unknown))}" if unknown else "`name` is needed, each column once"
            )
            return Found(mistakes=[f"line 1: {what}; there are: {', '.join((*_ONE, *_SEVERAL))}"])
        for cells in lines:
            if any(cell.strip() for cell in cells):
                _csv_row(f"line {lines.line_num}", header, [cell.strip() for cell in cells], found)
    except csv.Error as error:
        found.mistakes.append(f"line {lines.line_num}: not CSV: {error}")
    return found


def _csv_row(place: str, header: list[str], cells: list[str], found: Found) -> None:
    if len(cells) != len(header):
        found.mistakes.append(f"{place}: {len(cells)} cells under {len(header)} columns")
        return
    row = dict(zip(header, cells, strict=True))
    fields: dict[str, Any] = {key: row[key] for key in _ONE[:-1] if row.get(key)}
    fields |= {key: tuple(filter(None, map(str.strip, row[key].split("|")))) for key in _SEVERAL if row.get(key)}
    many = row.get("many", "").lower()
    if many not in (*_YES, *_NO):
        found.mistakes.append(f"{place}: many is yes or no, not {many!r}")
    if many in _YES:
        fields["many"] = True
    found.attributes.append((place, fields))


# --- what all forms have in common ---


def _finished(where: str, found: Found) -> Schema:
    """The attributes found, checked one by one and against each other."""
    mistakes = list(found.mistakes)
    made: list[tuple[str, Attribute]] = []
    for place, fields in found.attributes:
        try:
            made.append((place, Attribute.model_validate(fields)))
        except ValidationError as error:
            mistakes.append(f"{place}: {_reason(error)}")
    for place, attribute in made:
        mistakes += [f"{place}: {problem}" for problem in _bad_names(attribute)]
    for (_, first), (place, second) in combinations(made, 2):
        both = {first.name, *first.aliases} & {second.name, *second.aliases}
        if both and _meet(first, second):
            mistakes.append(f"{place}: {', '.join(map(repr, sorted(both)))} is the name of an attribute before it")
    if not found.attributes and not mistakes:
        mistakes.append("no attribute in it")
    if mistakes:
        raise BadSchema(where, mistakes)
    if found.unused:
        log.warning("%s: read, but nothing enforces: %s", where, "; ".join(found.unused))
    return Schema(attributes=tuple(attribute for _, attribute in made))


def _reason(error: ValidationError) -> str:
    said = reason(error)
    return f"{said} (types: {', '.join(get_args(ValueType))})" if said.startswith("type:") else said


def _bad_names(attribute: Attribute) -> Iterable[str]:
    """A name stands in one line of a prompt and is a key of the answer."""
    for name in (attribute.name, *attribute.aliases):
        if not name.strip() or name != name.strip() or len(name.splitlines()) > 1:
            yield f"{name!r} is no name: it is one line, with no blank at its ends"


def _meet(first: Attribute, second: Attribute) -> bool:
    """Whether a product may have both."""
    return not first.categories or not second.categories or bool(set(first.categories) & set(second.categories))
