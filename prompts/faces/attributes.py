"""Attribute value extraction as this room sees it: the attributes asked, questions about them, values read and written.

Answers come as an object or as lines; null words say absent, values stand as the source has them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from ...tasks import attributes
from ...tasks.images import Image
from ..align import Aligner
from ..faults import NULLS, Parsed, Wrong, lines_of, parsed
from ..plain import defuse, plain, sentence
from ..repair import clean
from .probe import CONTEXT, HOSTILE, PICTURE

VARIABLES = frozenset({"attributes"})
SUBJECTS = frozenset({"attribute"})


def subjects(needs: Sequence[str], example: Any) -> Sequence[Any]:
    """Each attribute asked; where gold is needed, each that has a gold value."""
    if "attribute" not in needs:
        return (None,)
    if "gold" in needs:
        return [name for name in example.asked if example.gold and example.gold.values.get(name)]
    return tuple(example.asked)


def fields(example: Any) -> dict[str, Any]:
    """``category`` and the names ``asked``."""
    return {"category": defuse(example.category), "asked": example.asked}


def variables(example: Any, schema: Any, place: Callable[[Image], str]) -> dict[str, Any]:
    """``attributes``: those asked, with their descriptions."""
    return {"attributes": plain(_asked_of(schema, example).attributes)}


def said(example: Any) -> str:
    """The product text."""
    return str(example.text)


def as_json(answer: Any, example: Any) -> str:
    """``{attribute: value or null}``."""
    values = {name: (values[0] if values else None) for name, values in answer.values.items()}
    return json.dumps(values, ensure_ascii=False)


def claims(schema: Any, answer: Any, example: Any) -> tuple[str, ...]:
    """One statement an attribute."""
    said = (f'{name} is "{values[0]}"' if values else f"{name} is not stated" for name, values in answer.values.items())
    return tuple(defuse(s) for s in said) or ("None of the attributes is stated",)


def _asked_of(schema: attributes.Schema, example: Any) -> attributes.Schema:
    """The schema of what is asked of this example."""
    return attributes.Schema(attributes=tuple(schema.attribute(name, example.category) for name in example.asked))


# --- questions ---


def questions(schema: Any, example: Any) -> dict[str, tuple[str, ...]]:
    """By attribute. One that stands several times with different meanings is asked by its name alone."""
    asked: dict[str, attributes.Attribute] = {}
    for attribute in (schema if example is None else _asked_of(schema, example)).attributes:
        same = asked.get(attribute.name)
        if same is not None and _meaning(same) != _meaning(attribute):
            attribute = attributes.Attribute(name=attribute.name, type="free")
        asked[attribute.name] = attribute
    return {name: _of_attribute(a) for name, a in asked.items()}


def _meaning(attribute: attributes.Attribute) -> tuple[Any, ...]:
    return attribute.description, attribute.type, attribute.options


def _of_attribute(attribute: attributes.Attribute) -> tuple[str, ...]:
    name, meaning = attribute.name, sentence(attribute.description)
    if attribute.type == "one_of":
        *most, last = attribute.options
        options = f"{', '.join(most)} or {last}" if most else last
        first = f"Which of these is the {name} of the product: {options}?"
    elif attribute.type == "verbatim":
        first = f"Which words in the product text state its {name}?"
    else:
        first = f"What is the {name} of the product?"
    return tuple(
        q.strip()
        for q in (
            f"{first} {meaning}",
            f"{meaning} What does the product have as its {name}?",
            f"Find the {name} of this product.",
        )
    )


# --- what a teacher wrote ---


def fits(value: Any) -> bool:
    """An object."""
    return isinstance(value, dict)


def read(value: Any, example: Any, schema: Any, repairs: list[str]) -> Parsed:
    """A value or none for every attribute asked; null words, values as the source has them."""
    sources = [Aligner(s) for s in (example.text, example.context.get("ocr", "")) if s]
    said: dict[str, Any] = {}
    inner = value.get("attributes")
    if len(value) == 1 and isinstance(inner, dict) and "attributes" not in example.asked:
        repairs.append("wrapped")
        value = inner
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
    if any(text in source.text for source in sources):
        return text  # right as said, even as a part of a word
    for source in sources:
        place = source.holds(text)
        if place is not None:
            return source.text[place[0] : place[1]]
    ungrounded.append(text)
    return text


#: ``**Name**:`` or ``**Name:**``.
_BOLD = re.compile(r"\A\*\*([^*|:：]+)(?:\*\*\s*([|:：])|([|:：])\s*\*\*)")
#: One pair of quotes round a whole value; a mark before the last is the value's own (inches, an apostrophe).
_QUOTED = re.compile(r"""(["'])((?:(?!\1).)*\1?)\1""")


def lines(body: str, example: Any, schema: Any) -> Any:
    """``attribute: value`` or ``attribute | value`` lines, one at least of an attribute asked."""
    lines = [_BOLD.sub(r"\1\2\3", line) for line in lines_of(body)]
    pairs = [re.split(r"\s*[|:：]\s*", line, maxsplit=1) for line in lines]
    known = {name.lower() for name in example.asked}
    if any(len(p) != 2 for p in pairs) or not any(p[0].lower() in known for p in pairs):
        raise Wrong("not_json", f"{lines[0][:80]!r}")
    if len({name for name, _ in pairs}) < len(pairs):
        raise Wrong("schema", "an attribute stands twice")
    return {name: _QUOTED.sub(r"\2", value) if _QUOTED.fullmatch(value) else value for name, value in pairs}


# --- probes ---

_PROBED = attributes.Schema(
    attributes=(
        attributes.Attribute(name="Brand", description="Maker named on the pack.", examples=("Acme", "Marvis")),
        attributes.Attribute(name="Sleeve", type="one_of", options=("Long", "Short")),
        attributes.Attribute(name="Use", type="free", categories=("Shirts",)),
    )
)


def probes() -> list[tuple[Any, Any]]:
    """Products."""
    gold = attributes.Answer(values={"Brand": ("Acme",), "Sleeve": ("Long",), "Use": ()})
    shirt: dict[str, Any] = {"category": "Shirts", "asked": ("Brand", "Sleeve", "Use"), "gold": gold}
    hat: dict[str, Any] = {"category": "Hats", "asked": ("Brand", "Sleeve")}
    named = attributes.Answer(values={"Brand": ("rules", "Ignore"), "Sleeve": ()})
    absent = attributes.Answer(values={"Brand": (), "Sleeve": ()})
    make = attributes.Example
    examples = [
        make(id="plain", text="Acme running shirt XL", **shirt),
        make(id="picture", text="Acme shirt", images=(PICTURE,), **shirt),
        make(id="pictures", text="a hat", gold=absent, images=(PICTURE, PICTURE), **hat),
        make(id="context", text="new Acme shirt", context=CONTEXT, **shirt),
        make(id="empty context", text="Acme hat", context={"caption": " "}, asked=("Brand",)),
        make(id="hostile", text=HOSTILE, context={"ocr": HOSTILE}, gold=named, images=(PICTURE,), **hat),
    ]
    return [(example, _PROBED) for example in examples]
