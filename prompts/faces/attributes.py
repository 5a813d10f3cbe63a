"""Attribute value extraction as this room sees it: the attributes asked, questions about them, values read and written.

Answers come as an object, in tags or as lines; null words say absent, values stand as the source has them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from ...tasks import attributes
from ...tasks.images import Image
from .. import tags
from ..align import Aligner
from ..faults import NULLS, Parsed, Wrong, lines_of, parsed
from ..plain import defuse, plain, sentence
from ..repair import clean
from .probe import CONTEXT, HOSTILE, PICTURE

VARIABLES = frozenset({"attributes", "typed"})
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
    return {"category": defuse(example.category), "asked": plain(example.asked)}


def variables(example: Any, schema: Any, place: Callable[[Image], str]) -> dict[str, Any]:
    """``typed``: the attributes asked as they are; ``attributes``: as templates see them that know but three types."""
    asked = _asked_of(schema, example).attributes
    return {"typed": plain(asked), "attributes": plain(tuple(map(_of_three_types, asked)))}


#: What the four later types come nearest to among the three of the first templates.
_NEAREST = {"number": "verbatim", "date": "verbatim", "boolean": "one_of", "several_of": "one_of"}


def _of_three_types(attribute: attributes.Attribute) -> attributes.Attribute:
    """The attribute with what those templates do not show told in its description."""
    told = [sentence(attribute.boundary)]
    told += [f"In {attribute.unit}."] if attribute.unit else []
    told += ["Several values are a list."] if attribute.many else []
    if any(told):
        told.insert(0, sentence(attribute.description))
    return attribute.model_copy(
        update={
            "type": _NEAREST.get(attribute.type, attribute.type),
            "options": attribute.choices,
            "description": " ".join(filter(None, told)) or attribute.description,
        }
    )


def said(example: Any) -> str:
    """The product text."""
    return str(example.text)


def as_json(answer: Any, example: Any, schema: Any = None) -> str:
    """``{attribute: value, [values] or null}``."""
    said = {name: _said(_known(schema, name, example), values) for name, values in answer.values.items()}
    return json.dumps(said, ensure_ascii=False)


def _said(attribute: attributes.Attribute | None, values: Sequence[str]) -> Any:
    """An attribute's values as JSON has them; the first alternative where one is enough."""
    if not values:
        return None
    if attribute and attribute.many:
        return list(values)
    if attribute and attribute.type == "boolean" and values[0] in attribute.choices:
        return values[0] == attributes.TRUE
    return values[0]


def _known(schema: Any, name: str, example: Any) -> attributes.Attribute | None:
    """The attribute, or None where there is no schema, or (of a demonstration from elsewhere) not in it."""
    try:
        found: attributes.Attribute | None = schema and schema.attribute(name, example.category if example else "")
    except KeyError:
        return None
    return found


def claims(schema: Any, answer: Any, example: Any) -> tuple[str, ...]:
    """One statement an attribute."""
    said = []
    for name, values in answer.values.items():
        attribute = _known(schema, name, example)
        stated = values if attribute and attribute.many else values[:1]
        is_what = " and ".join(f'"{value}"' for value in stated)
        said.append(defuse(f"{name} is {is_what}" if stated else f"{name} is not stated"))
    return tuple(said) or ("None of the attributes is stated",)


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
    return attribute.description, attribute.type, attribute.options, attribute.unit


def _of_attribute(attribute: attributes.Attribute) -> tuple[str, ...]:
    name, meaning = attribute.name, sentence(attribute.description)
    if attribute.options:
        *most, last = attribute.options
        options = f"{', '.join(most)} or {last}" if most else last
        first = f"Which of these {'belong to' if attribute.many else 'is'} the {name} of the product: {options}?"
    elif attribute.type == "boolean":
        first = f"Is it true of the product: {name}?"
    elif attribute.type == "number":
        first = f"Which number in the product text states its {name}{f', in {attribute.unit}' * bool(attribute.unit)}?"
    elif attribute.type == "date":
        first = f"Which date in the product text is its {name}?"
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


#: Words about a product that are not its own: no value is copied out of them.
_DESCRIBED = frozenset({"caption", "long_caption", "tags", "colours", "knowledge"})
_YES, _NO = ("true", "yes"), ("false", "no")


def read(value: Any, example: Any, schema: Any, repairs: list[str]) -> Parsed:
    """The values or none of every attribute asked; null words, values as the source has them."""
    sources = [Aligner(example.text)]
    sources += [Aligner(text) for name, text in example.context.items() if text and name not in _DESCRIBED]
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
        texts = _values(attribute, said.get(name), repairs)
        found = [_value(attribute, text, sources, ungrounded) for text in texts]
        answer[name] = tuple(dict.fromkeys(found) if attribute.many else found)
        if len(answer[name]) < len(found):
            repairs.append("duplicates")
    return parsed(attributes.Answer(values=answer), repairs, ungrounded)


def _names(example: Any, schema: attributes.Schema) -> dict[str, str]:
    """What each attribute asked may be called, in lower case: its name, and its aliases where they are not a name."""
    named = {alias.lower(): n for n in example.asked for alias in schema.attribute(n, example.category).aliases}
    return named | {name.lower(): name for name in example.asked}


def _asked(key: str, example: Any, schema: attributes.Schema, repairs: list[str]) -> str | None:
    """The attribute meant, in any case; None for one of the category that was not asked (dropped)."""
    if key in example.asked:
        return key
    said = " ".join(key.lower().split())
    name = _names(example, schema).get(said)
    if name is not None:
        repairs.append("labels")
        return name
    if said in {a.name.lower() for a in schema.of(example.category)}:
        repairs.append("not_asked")
        return None
    raise Wrong("unknown_label", f"{key[:80]!r} was not asked; asked: {', '.join(example.asked)}")


def _values(attribute: attributes.Attribute, value: Any, repairs: list[str]) -> list[str]:
    """The values said, none for absent; a number counts as its text, a list as several values."""
    if isinstance(value, list):
        if not attribute.many:
            repairs.append("list")
        if any(isinstance(v, list) for v in value):
            raise Wrong("schema", f"{attribute.name}: a list in a list")
        texts = [text for v in value if (text := _text(attribute, v, repairs)) is not None]
        if attribute.type == "boolean" and len(texts) > 1:
            raise Wrong("schema", f"{attribute.name}: both true and false")
        return texts
    said = _text(attribute, value, repairs)
    if said is not None and attribute.many:
        repairs.append("bare_value")
    return [] if said is None else [said]


def _text(attribute: attributes.Attribute, value: Any, repairs: list[str]) -> str | None:
    """One value as a text; None for absent."""
    if isinstance(value, bool) and attribute.type == "boolean":
        return attributes.TRUE if value else attributes.FALSE
    if value is None:
        return None
    if isinstance(value, bool | dict) or not isinstance(value, str | int | float):
        raise Wrong("schema", f"{attribute.name}: not a value: {str(value)[:80]}")
    if not isinstance(value, str):
        repairs.append("numbers")
    text = clean(str(value)).strip()
    options = {o.lower() for o in attribute.options}
    if text.lower() in NULLS - options:
        return None
    if attribute.type == "boolean" and text.lower() in (*_YES, *_NO):
        repairs.append("booleans")
        return attributes.TRUE if text.lower() in _YES else attributes.FALSE
    return text


def _value(attribute: attributes.Attribute, text: str, sources: list[Aligner], ungrounded: list[str]) -> str:
    """The value in the source's own form, or as the closed list has it."""
    if attribute.choices:
        for choice in attribute.choices:
            if choice.lower() == text.lower():
                return choice
        raise Wrong("schema", f"{attribute.name}: {text[:80]!r} is not among its {len(attribute.choices)} options")
    if attribute.type == "number" and not any(letter.isnumeric() for letter in text):
        raise Wrong("schema", f"{attribute.name}: {text[:80]!r} holds no number")
    if not attribute.copied:
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


def lines(body: str, example: Any, schema: Any, repairs: list[str]) -> Any:
    """Tags, or ``attribute: value`` or ``attribute | value`` lines, one at least of an attribute asked."""
    asked = [schema.attribute(name, example.category) for name in example.asked]
    known = _names(example, schema)
    tagged = tags.read(body, [name for a in asked for name in (a.name, *a.aliases)], repairs)
    if tagged is not None:
        repairs.append("tags")
        return {name: _typed(schema.attribute(known[name.lower()], example.category), v) for name, v in tagged.items()}
    lines = [_BOLD.sub(r"\1\2\3", line) for line in lines_of(body)]
    pairs = [re.split(r"\s*[|:：]\s*", line, maxsplit=1) for line in lines]
    if any(len(p) != 2 for p in pairs) or not any(p[0].lower() in known for p in pairs):
        raise Wrong("not_json", f"{lines[0][:80]!r}")
    if len({name for name, _ in pairs}) < len(pairs):
        raise Wrong("schema", "an attribute stands twice")
    value: dict[str, Any] = {}
    for name, said in pairs:
        attribute = next((a for a in asked if a.name == known.get(name.lower())), None)
        texts = re.split(r"\s*\|\s*", said) if attribute and attribute.many else [said]
        texts = [_QUOTED.sub(r"\2", text) if _QUOTED.fullmatch(text) else text for text in texts]
        value[name] = _typed(attribute, texts) if attribute else texts[0]
    return value


def _typed(attribute: attributes.Attribute, texts: list[str]) -> Any:
    """Values out of a form that knows but texts, as an answer in JSON has them."""
    if attribute.type == "boolean":
        said = {**dict.fromkeys(_YES, True), **dict.fromkeys(_NO, False)}
        return said.get(texts[0].lower(), texts[0]) if len(texts) == 1 else list(texts)
    return texts if attribute.many or len(texts) > 1 else texts[0]


# --- probes ---

_PROBED = attributes.Schema(
    attributes=(
        attributes.Attribute(name="Brand", description="Maker named on the pack.", examples=("Acme", "Marvis")),
        attributes.Attribute(name="Sleeve", type="one_of", options=("Long", "Short")),
        attributes.Attribute(name="Use", type="free", categories=("Shirts",)),
        attributes.Attribute(name="Weight", type="number", unit="g", boundary="with the unit", categories=("Foods",)),
        attributes.Attribute(name="Best before", type="date", aliases=("use by",), categories=("Foods",)),
        attributes.Attribute(name="Vegan", type="boolean", categories=("Foods",)),
        attributes.Attribute(name="Claims", type="several_of", options=("raw", "fair trade"), categories=("Foods",)),
        attributes.Attribute(name="Flavour", many=True, categories=("Foods",)),
    )
)


def probes() -> list[tuple[Any, Any]]:
    """Products."""
    gold = attributes.Answer(values={"Brand": ("Acme",), "Sleeve": ("Long",), "Use": ()})
    shirt: dict[str, Any] = {"category": "Shirts", "asked": ("Brand", "Sleeve", "Use"), "gold": gold}
    hat: dict[str, Any] = {"category": "Hats", "asked": ("Brand", "Sleeve")}
    named = attributes.Answer(values={"Brand": ("rules", "Ignore"), "Sleeve": ()})
    absent = attributes.Answer(values={"Brand": (), "Sleeve": ()})
    typed = {"Weight": ("90 g",), "Best before": (), "Vegan": ("true",), "Claims": ("raw",), "Flavour": ("fig", "nut")}
    bar: dict[str, Any] = {"category": "Foods", "asked": tuple(typed), "gold": attributes.Answer(values=typed)}
    make = attributes.Example
    examples = [
        make(id="plain", text="Acme running shirt XL", **shirt),
        make(id="picture", text="Acme shirt", images=(PICTURE,), **shirt),
        make(id="pictures", text="a hat", gold=absent, images=(PICTURE, PICTURE), **hat),
        make(id="context", text="new Acme shirt", context=CONTEXT, **shirt),
        make(id="empty context", text="Acme hat", context={"caption": " "}, asked=("Brand",)),
        make(id="typed", text="Acme fig and nut bar, 90 g, raw vegan", **bar),
        make(id="hostile", text=HOSTILE, context={"ocr": HOSTILE}, gold=named, images=(PICTURE,), **hat),
    ]
    return [(example, _PROBED) for example in examples]
