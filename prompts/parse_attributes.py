"""Teachers' answers about attributes: an object or lines; null words, values as the source has them."""

from __future__ import annotations

import re
from typing import Any

from ..tasks import attributes
from .align import Aligner
from .faults import NULLS, Parsed, Wrong, lines_of, parsed
from .repair import clean


def fits(value: Any) -> bool:
    return isinstance(value, dict)


def read(value: Any, example: Any, schema: Any, repairs: list[str]) -> Parsed:
    sources = [Aligner(s) for s in (example.text, example.context.get("ocr", "")) if s]
    said: dict[str, Any] = {}
    for key, values in value.items():
        name = _asked(key, example, schema, repairs)
        if name is None:
            continue
        if name in said:
            raise Wrong("schema", f"{name!r} stands twice")
        said[name] = values
    if example.asked and not said:
        raise Wrong("schema", "an object without any of the attributes asked")
    answer: dict[str, tuple[str, ...]] = {}
    ungrounded: list[str] = []
    for name in example.asked:
        if name not in said:
            repairs.append("missing_keys")
        attribute = schema.attribute(name, example.category)
        answer[name] = tuple(
            _value(attribute, v, sources, ungrounded) for v in _values(attribute, said.get(name), repairs)
        )
    return parsed(attributes.Answer(values=answer), repairs, ungrounded)


def _asked(key: str, example: Any, schema: attributes.Schema, repairs: list[str]) -> str | None:
    """The attribute meant, in any case; None for one of the category that was not asked (dropped)."""
    if key in example.asked:
        return key
    said = " ".join(key.lower().split())
    for name in example.asked:
        if name.lower() == said:
            repairs.append("labels")
            return name
    if said in {a.name.lower() for a in schema.of(example.category)}:
        repairs.append("not_asked")
        return None
    raise Wrong("unknown_label", f"{key[:80]!r} was not asked; asked: {', '.join(example.asked)}")


def _values(attribute: attributes.Attribute, value: Any, repairs: list[str]) -> list[str]:
    """The values said, none for absent; a number counts as its text, a list as several values."""
    if isinstance(value, list):
        repairs.append("list")
        if any(isinstance(v, list) for v in value):
            raise Wrong("schema", f"{attribute.name}: a list in a list")
        return [text for v in value for text in _values(attribute, v, repairs)]
    if value is None:
        return []
    if isinstance(value, bool | dict) or not isinstance(value, str | int | float):
        raise Wrong("schema", f"{attribute.name}: not a value: {str(value)[:80]}")
    if not isinstance(value, str):
        repairs.append("numbers")
    text = clean(str(value)).strip()
    options = {o.lower() for o in attribute.options}
    return [] if text.lower() in NULLS - options else [text]


def _value(attribute: attributes.Attribute, text: str, sources: list[Aligner], ungrounded: list[str]) -> str:
    """The value in the source's own form, or as the closed list has it."""
    if attribute.type == "one_of":
        for option in attribute.options:
            if option.lower() == text.lower():
                return option
        raise Wrong("schema", f"{attribute.name}: {text[:80]!r} is not among its {len(attribute.options)} options")
    if attribute.type == "free":
        return text
    for source in sources:
        place = source.holds(text)
        if place is not None:
            return source.text[place[0] : place[1]]
    ungrounded.append(text)
    return text


def lines(body: str, example: Any, schema: Any) -> Any:
    """``attribute: value`` or ``attribute | value`` lines, one at least of an attribute asked."""
    lines = lines_of(body)
    pairs = [re.split(r"\s*[|:：]\s*", line, maxsplit=1) for line in lines]
    known = {name.lower() for name in example.asked}
    if any(len(p) != 2 for p in pairs) or not any(p[0].lower() in known for p in pairs):
        raise Wrong("not_json", f"{lines[0][:80]!r}")
    if len({name for name, _ in pairs}) < len(pairs):
        raise Wrong("schema", "an attribute stands twice")
    return {name: value.strip("\"'") for name, value in pairs}
