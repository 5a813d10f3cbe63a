"""A schema of attributes out of a NuExtract template, and back.

A template is a JSON object whose leaves are types: ``"verbatim-string"``, ``["number"]`` (several values),
``["red", "blue"]`` (one of these), ``[["red", "blue"]]`` (several of these). An object in an object is flattened:
``size.width``. The empty leaves of NuExtract 1 (``""`` and ``[]``) are copied strings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from .attributes import Attribute, Schema
from .json_schema import Found
from .task import DataFault

#: NuExtract's types: how ours is called, and what it says beside that. Source: the project's list of types.
TYPES: dict[str, tuple[str, str]] = {
    "verbatim-string": ("verbatim", ""),
    "string": ("free", ""),
    "integer": ("number", "A whole number."),
    "number": ("number", ""),
    "boolean": ("boolean", ""),
    "date": ("date", ""),
    "time": ("verbatim", "A time of day."),
    "date-time": ("date", "A date with the time of day."),
    "duration": ("verbatim", "A duration."),
    "country": ("free", "A country."),
    "currency": ("free", "A currency."),
    "language": ("free", "A language."),
    "language-tag": ("free", "The tag of a language, such as en-GB."),
    "script": ("free", "A writing system."),
    "url": ("verbatim", "A web address."),
    "email-address": ("verbatim", "An e-mail address."),
    "phone-number": ("verbatim", "A telephone number."),
    "iban": ("verbatim", "An IBAN."),
    "bic": ("verbatim", "A BIC."),
    "unit-code": ("free", "The code of a unit."),
    "": ("verbatim", ""),
}
_REGION = re.compile(r"region:([A-Z]{2})")
#: How our types are called there.
_OURS = {"verbatim": "verbatim-string", "free": "string", "number": "number", "date": "date", "boolean": "boolean"}


def read(document: Mapping[str, Any]) -> Found:
    """The attributes of a template, with every mistake in it."""
    found = Found()
    _object(document, "", found)
    return found


def write(schema: Schema, names: Iterable[str], category: str = "") -> dict[str, Any]:
    """The template of some attributes of a category. Descriptions and boundaries belong into its instructions.

    A `DataFault` where the only choice of a ``one_of`` would be read as a type.
    """
    return {name: _leaf(schema.attribute(name, category)) for name in names}


def _leaf(attribute: Attribute) -> Any:
    if attribute.type == "one_of" and len(attribute.options) == 1:
        raise DataFault(
            f"attribute {attribute.name!r}", "a NuExtract template has no choice of one", "give two options"
        )
    value: Any = list(attribute.options) or _OURS[attribute.type]
    return [value] if attribute.many else value


def _object(node: Mapping[str, Any], prefix: str, found: Found) -> None:
    for name, leaf in node.items():
        place = f"{prefix}{name}"
        if not isinstance(name, str) or not name.strip():
            found.mistakes.append(f"{place}: no name: {name!r}")
            continue
        if isinstance(leaf, dict) and leaf:
            _object(leaf, f"{place}.", found)
            continue
        try:
            found.attributes.append((place, {"name": place, **_fields(leaf)}))
        except ValueError as error:
            found.mistakes.append(f"{place}: {error}")


def _fields(leaf: Any) -> dict[str, Any]:
    if isinstance(leaf, str):
        return _of_type(leaf)
    if leaf == []:
        return {**_of_type(""), "many": True}
    if not isinstance(leaf, list):
        raise ValueError(f"a leaf is a type or a list of choices, not {leaf!r}")
    if len(leaf) == 1 and isinstance(leaf[0], list):
        return {"type": "several_of", "options": _choices(leaf[0])}
    if len(leaf) == 1 and isinstance(leaf[0], dict):
        raise ValueError("a list of objects cannot be asked for; a list holds values")
    if len(leaf) == 1:
        fields = _of_type(leaf[0])
        if fields["type"] == "boolean":
            raise ValueError("a list of booleans says nothing; name each")
        return {**fields, "many": True}
    return {"type": "one_of", "options": _choices(leaf)}


def _of_type(word: Any) -> dict[str, Any]:
    if isinstance(word, str) and (region := _REGION.fullmatch(word)):
        return {"type": "free", "description": f"A region of {region[1]}."}
    if not isinstance(word, str) or word not in TYPES:
        raise ValueError(f"unknown type {word!r}; there are: {', '.join(filter(None, TYPES))}, region:XX")
    kind, description = TYPES[word]
    return {"type": kind, **({"description": description} if description else {})}


def _choices(options: list[Any]) -> tuple[str, ...]:
    if not options or not all(isinstance(option, str) for option in options):
        raise ValueError(f"choices are texts, not {options!r}")
    return tuple(options)
