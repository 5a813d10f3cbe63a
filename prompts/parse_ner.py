"""Teachers' answers about entities: JSON in three shapes, or lines; mentions aligned to the text."""

from __future__ import annotations

from typing import Any

from ..tasks import ner
from .align import Aligner
from .faults import NULLS, Parsed, Wrong, lines_of, parsed
from .repair import clean


def fits(value: Any) -> bool:
    """An object, or a list that may be the entities; prose such as ``[1]`` is neither."""
    return isinstance(value, dict) or (
        isinstance(value, list) and all(isinstance(v, dict) for v in value) and value != []
    )


def read(value: Any, example: Any, schema: Any, repairs: list[str]) -> Parsed:
    aligner, entities = Aligner(example.text), []
    for text, label in _mentions(value, schema, repairs):
        place = aligner.find(text) or aligner.holds(text)
        if place is None:
            entity = ner.Entity(text=text, type=label)
        else:
            start, end = place
            entity = ner.Entity(text=example.text[start:end], type=label, start=start, end=end)
        if entity in entities:
            repairs.append("duplicates")
        else:
            entities.append(entity)
    entities.sort(key=lambda e: (e.start is None, e.start or 0, e.end or 0))
    ungrounded = [e.text for e in entities if e.start is None]
    return parsed(ner.Answer(entities=tuple(entities)), repairs, ungrounded)


def _mentions(value: Any, schema: ner.Schema, repairs: list[str]) -> list[tuple[str, str]]:
    """(text, label) pairs of ``{"entities": [...]}``, of the bare list, or of ``{label: [texts]}``."""
    if isinstance(value, dict) and (not value or {"text", "type"} <= value.keys()):
        raise Wrong("schema", f"no list of entities: {str(value)[:80]}")
    if isinstance(value, dict) and "entities" not in value:
        repairs.append("by_type")
        return [(_text(t), _label(k, schema, repairs)) for k, texts in value.items() for t in _texts(k, texts)]
    if isinstance(value, list):
        repairs.append("bare_list")
    elif len(value) > 1:
        repairs.append("extra_keys")
    entities = value if isinstance(value, list) else value["entities"]
    if not isinstance(entities, list):
        raise Wrong("schema", "entities is not a list")
    pairs = []
    for entity in entities:
        if not (isinstance(entity, dict) and {"text", "type"} <= entity.keys()):
            raise Wrong("schema", f"not an entity with text and type: {str(entity)[:80]}")
        if len(entity) > 2:
            repairs.append("extra_keys")
        pairs.append((_text(entity["text"]), _label(entity["type"], schema, repairs)))
    return pairs


def _texts(key: str, texts: Any) -> list[Any]:
    if texts is None:
        return []
    if isinstance(texts, str):
        return [] if texts.strip().lower() in NULLS else [texts]
    if isinstance(texts, list):
        return texts
    raise Wrong("schema", f"{key}: not a list of mentions")


def _text(value: Any) -> str:
    text = clean(value).strip() if isinstance(value, str) else ""
    if not text:
        raise Wrong("schema", f"not a mention: {str(value)[:80]!r}")
    return text


def _label(value: Any, schema: ner.Schema, repairs: list[str]) -> str:
    """The type meant: its label, or label or title in any case."""
    if value in schema.labels:
        return str(value)
    said = " ".join(str(value).lower().split())
    for kind in schema.types:
        if said in (kind.name.lower(), kind.title.lower()):
            repairs.append("labels")
            return kind.name
    raise Wrong("unknown_label", f"{str(value)[:80]!r}; there are: {', '.join(schema.labels)}")


def lines(body: str, example: Any, schema: Any) -> Any:
    """``mention | type`` lines, all of them; ``none`` alone says that there are no entities."""
    lines = lines_of(body)
    if len(lines) == 1 and lines[0].lower().strip(".") in NULLS | {"no entities", "no named entities", "[]"}:
        return {"entities": []}
    pairs = [line.rsplit("|", 1) for line in lines]
    if any(len(p) != 2 or not p[0].strip() for p in pairs):
        raise Wrong("not_json", f"{lines[0][:80]!r}")
    return {"entities": [{"text": t.strip(), "type": k.strip()} for t, k in pairs]}
