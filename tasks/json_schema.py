"""A schema of attributes out of JSON Schema (a pydantic model's is one), and back.

Read are objects with ``properties``; of each property its ``type``, ``enum`` or ``const``, ``format: date``, list
``items``, ``description`` and ``examples``, through ``$ref``, one-member ``allOf`` and ``anyOf`` with ``null``. An
object in an object is flattened: ``size.width``. What JSON Schema has no word for stands under our own: ``x-type`` (one
of the seven value types; a plain string is ``free`` without it), ``x-unit``, ``x-boundary``, ``x-aliases``, ``x-names``
and ``x-categories``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .attributes import CLOSED, Attribute, Schema
from .task import closed_object

#: Fields of an attribute that are written under our own words.
OWN = ("type", "unit", "boundary", "aliases", "names", "categories")
#: What is understood, and what says nothing about values.
_KNOWN = frozenset(
    (
        *("type", "enum", "const", "items", "properties", "description", "examples", "format"),
        *("$ref", "anyOf", "oneOf", "allOf", "$defs", "definitions", "$schema", "$id", "$comment"),
        *("title", "default", "required", "additionalProperties", "deprecated", "readOnly", "writeOnly"),
        *(f"x-{name}" for name in OWN),
    )
)
#: What changes the meaning so much that it cannot be left out.
_REFUSED = ("not", "if", "patternProperties", "propertyNames", "dependentSchemas", "prefixItems", "discriminator")
_KINDS = {"string": "free", "integer": "number", "number": "number", "boolean": "boolean"}
_DATES = ("date", "date-time")
_NULL = {"type": "null"}


@dataclass
class Found:
    """What a reader of schemas found.

    Attributes:
        attributes: (place, fields of an `Attribute`).
        mistakes: what is wrong, each with its place.
        unused: keywords with their places that say what is not enforced here.
    """

    attributes: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


class _Mistake(ValueError):
    """Carries what is wrong, with its place, out of the depth."""

    def __init__(self, place: str, problem: str) -> None:
        super().__init__(f"{place}: {problem}")


def looks_like(document: Mapping[str, Any]) -> bool:
    """Whether a JSON object is a JSON Schema: ``$schema``, ``$defs`` or ``$ref``, or an object's ``properties``."""
    if any(key in document for key in ("$schema", "$defs", "$ref")):
        return True
    properties = document.get("properties")
    if not isinstance(properties, dict):
        return False
    return document.get("type") == "object" or all(isinstance(inner, dict | bool) for inner in properties.values())


def read(document: Mapping[str, Any]) -> Found:
    """The attributes of a JSON Schema, with every mistake in it."""
    found = Found()
    _Reader(document, found).object(dict(document), "#", "", frozenset())
    return found


def write(schema: Schema, names: Iterable[str], category: str = "") -> dict[str, Any]:
    """JSON Schema of some attributes of a category, every one a required key that may be null.

    It describes values; what a teacher is to answer is `attributes.answer_schema`.
    """
    return closed_object({name: _property(schema.attribute(name, category)) for name in names})


def _property(attribute: Attribute) -> dict[str, Any]:
    value: dict[str, Any] = {"type": "string"}
    if attribute.options:
        value = {"type": "string", "enum": list(attribute.options)}
    elif attribute.type in ("number", "boolean"):
        value = {"type": attribute.type}
    elif attribute.type == "date":
        value = {"type": "string", "format": "date"}
    made: dict[str, Any] = {"anyOf": [{"type": "array", "items": value} if attribute.many else value, dict(_NULL)]}
    dumped = attribute.model_dump(mode="json", exclude_defaults=True)
    made |= {key: dumped[key] for key in ("description", "examples") if key in dumped}
    made |= {f"x-{key}": dumped[key] for key in OWN[1:] if key in dumped}
    return made | ({"x-type": "verbatim"} if attribute.type == "verbatim" else {})


class _Reader:
    """Walks a document; mistakes in one property do not stop the others."""

    def __init__(self, root: Mapping[str, Any], found: Found) -> None:
        self.root, self.found = root, found

    def object(self, node: dict[str, Any], place: str, prefix: str, trail: frozenset[str]) -> None:
        """The properties of an object, those of inner objects under dotted names."""
        try:
            node, trail = self.resolved(node, place, trail)
            properties = node.get("properties")
            if not isinstance(properties, dict) or not properties:
                raise _Mistake(place, "an object needs `properties`; open keys cannot be asked for")
            if isinstance(node.get("additionalProperties"), dict):
                raise _Mistake(place, "open keys (additionalProperties) cannot be asked for; name them")
        except _Mistake as mistake:
            self.found.mistakes.append(str(mistake))
            return
        for name, inner in properties.items():
            if not isinstance(name, str) or not name.strip():
                self.found.mistakes.append(f"{place}/properties/{name}: no name: {name!r}")
                continue
            self.property(inner, f"{place}/properties/{name}", prefix + name, trail)

    def property(self, node: Any, place: str, name: str, trail: frozenset[str]) -> None:
        """One property: an attribute, or an object of some."""
        try:
            node = {} if node is True else node
            if not isinstance(node, dict):
                raise _Mistake(place, f"not a schema: {node!r}")
            resolved, inner = self.resolved(node, place, trail)
            if "properties" in resolved or resolved.get("type") == "object":
                self.object(resolved, place, f"{name}.", inner)
                return
            fields = self.value(resolved, place, inner)
            fields |= self.notes(resolved, place)
            self.found.attributes.append((place, {"name": name, **fields}))
        except _Mistake as mistake:
            self.found.mistakes.append(str(mistake))

    def resolved(
        self, node: dict[str, Any], place: str, trail: frozenset[str]
    ) -> tuple[dict[str, Any], frozenset[str]]:
        """The node with references followed and null left out; what stands beside a reference goes before it."""
        while True:
            for key in _REFUSED:
                if key in node:
                    raise _Mistake(place, f"{key} cannot be read; say it as type, enum or description")
            rest = {key: value for key, value in node.items() if key not in ("$ref", "allOf", "anyOf", "oneOf")}
            branches = next((node[key] for key in ("allOf", "anyOf", "oneOf") if key in node), None)
            if "$ref" in node:
                reference = node["$ref"]
                if not isinstance(reference, str) or not reference.startswith("#"):
                    raise _Mistake(place, f"$ref {reference!r} leads out of the file; put it under $defs")
                if reference in trail:
                    raise _Mistake(place, f"{reference} refers to itself; attributes are finite")
                trail |= {reference}
                target = self.target(reference, place)
            elif branches is not None:
                if not isinstance(branches, list) or not all(isinstance(one, dict) for one in branches):
                    raise _Mistake(place, "anyOf, oneOf and allOf are lists of schemas")
                kept = [one for one in branches if one != _NULL]
                if len(kept) != 1:
                    if "allOf" in node or not kept:
                        raise _Mistake(place, "allOf of several schemas cannot be read" if kept else "nothing but null")
                    return {**rest, "anyOf": kept}, trail
                target = kept[0]
            else:
                return node, trail
            node = {**target, **rest}

    def target(self, reference: str, place: str) -> dict[str, Any]:
        """What a reference within the document points to."""
        at: Any = self.root
        for step in reference.split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            if not isinstance(at, dict) or step not in at:
                raise _Mistake(place, f"$ref {reference!r} points to nothing")
            at = at[step]
        if not isinstance(at, dict):
            raise _Mistake(place, f"$ref {reference!r} points to no schema")
        return at

    def value(self, node: dict[str, Any], place: str, trail: frozenset[str]) -> dict[str, Any]:
        """``type``, ``options`` and ``many`` of a node that is no object."""
        self.found.unused += [f"{key} ({place})" for key in node if key not in _KNOWN]
        if "anyOf" in node:
            return self.joined(node["anyOf"], place, trail)
        if "enum" in node or "const" in node:
            return _closed(node["enum"] if "enum" in node else [node["const"]], place)
        kinds = node.get("type", "string")
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
            raise _Mistake(place, f"type {kinds!r} is no type's name")
        kinds = [kind for kind in kinds if kind != "null"]
        if len(kinds) != 1:
            return self.joined([{**node, "type": kind} for kind in kinds], place, trail)
        if kinds == ["array"]:
            return self.several(node, place, trail)
        if kinds == ["string"] and "format" in node:
            if node["format"] in _DATES:
                return {"type": "date"}
            self.found.unused.append(f"format: {node['format']} ({place})")
        if kinds[0] not in _KINDS:
            raise _Mistake(place, f"type {kinds[0]!r} is none of {', '.join(_KINDS)}, array, object")
        return {"type": _KINDS[kinds[0]]}

    def several(self, node: dict[str, Any], place: str, trail: frozenset[str]) -> dict[str, Any]:
        """A list of values: of free ones if it does not say of which."""
        items = node.get("items", True)
        if items is not True and not isinstance(items, dict):
            raise _Mistake(place, f"items is a schema, not {items!r}")
        inner, trail = self.resolved({} if items is True else items, f"{place}/items", trail)
        if "properties" in inner or inner.get("type") in ("object", "array"):
            raise _Mistake(place, f"a list of {inner.get('type', 'object')}s cannot be asked for; a list holds values")
        fields = self.value(inner, f"{place}/items", trail)
        if fields["type"] == "boolean":
            raise _Mistake(place, "a list of booleans says nothing; name each")
        return {**fields, "type": "several_of" if "options" in fields else fields["type"], "many": True}

    def joined(self, branches: list[dict[str, Any]], place: str, trail: frozenset[str]) -> dict[str, Any]:
        """Several possible schemas as one type, where they say the same in different forms."""
        resolved = [self.resolved(one, place, trail) for one in branches]
        for node, _ in resolved:
            if "properties" in node or node.get("type") == "object":
                raise _Mistake(place, "a choice between objects and others cannot be asked for; give one")
        found = [self.value(node, place, inner) for node, inner in resolved]
        kinds = {one["type"] for one in found}
        many = any(one.get("many") for one in found)
        if kinds and kinds <= set(CLOSED):
            options = tuple(dict.fromkeys(option for one in found for option in one["options"]))
            return {"type": "several_of" if many else "one_of", "options": options}
        if kinds == {"number", "free"}:  # pydantic's form of a decimal
            kinds = {"number"}
        if len(kinds) != 1:
            raise _Mistake(place, f"one attribute, one type; this has {' or '.join(sorted(kinds)) or 'none'}")
        return {"type": kinds.pop(), "many": many}

    def notes(self, node: dict[str, Any], place: str) -> dict[str, Any]:
        """Description, examples and our own words."""
        notes = {key: node[f"x-{key}"] for key in OWN if f"x-{key}" in node}
        if "description" in node:
            notes["description"] = node["description"]
        if "examples" in node:
            examples = node["examples"]
            if not isinstance(examples, list):
                raise _Mistake(place, "examples are a list")
            flat = [one for some in examples for one in (some if isinstance(some, list) else [some])]
            notes["examples"] = tuple(_text(one, place) for one in flat if one is not None)
        return notes


def _closed(options: Any, place: str) -> dict[str, Any]:
    """A closed list; of true and false alone, a boolean."""
    if not isinstance(options, list):
        raise _Mistake(place, "enum is a list")
    kept = [option for option in options if option is not None]
    if not kept:
        raise _Mistake(place, "an enum without a value")
    if all(isinstance(option, bool) for option in kept):
        return {"type": "boolean"}
    return {"type": "one_of", "options": tuple(_text(option, place) for option in kept)}


def _text(value: Any, place: str) -> str:
    """A value of JSON as an attribute holds it."""
    if isinstance(value, str):
        return value
    if not isinstance(value, bool | int | float):
        raise _Mistake(place, f"not a value: {value!r}")
    return json.dumps(value)
