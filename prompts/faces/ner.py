"""Entity recognition as this room sees it: the types, questions from their guidelines, typed spans read and written.

Answers come as JSON in three shapes, or as lines; mentions are aligned to the text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from ...tasks import ner
from ...tasks.images import Image
from ..align import Aligner, Span
from ..faults import NULLS, Parsed, Wrong, lines_of, mention, parsed
from ..plain import defuse, plain, sentence
from .probe import CONTEXT, HOSTILE, PICTURE

VARIABLES = frozenset({"types"})
SUBJECTS = frozenset({"entity"})


def subjects(needs: Sequence[str], example: Any) -> Sequence[Any]:
    """Each gold entity, once."""
    if "entity" not in needs:
        return (None,)
    entities = example.gold.entities if example.gold else ()
    return list({(e.text, e.type): e for e in entities}.values())


def fields(example: Any) -> dict[str, Any]:
    """Nothing beside text, context and pictures."""
    return {}


def variables(example: Any, schema: Any, place: Callable[[Image], str]) -> dict[str, Any]:
    """``types``: the entity types."""
    return {"types": plain(schema.types)}


def said(example: Any) -> str:
    """The text."""
    return str(example.text)


def as_json(answer: Any, example: Any, schema: Any = None) -> str:
    """``{"entities": [{"text": ..., "type": ...}]}``."""
    return json.dumps({"entities": [{"text": e.text, "type": e.type} for e in answer.entities]}, ensure_ascii=False)


def claims(schema: Any, answer: Any, example: Any) -> tuple[str, ...]:
    """One statement an entity."""
    titles = {t.name: t.title for t in schema.types}
    said = (f'"{e.text}" is an entity of the type {e.type} ({titles.get(e.type, e.type)})' for e in answer.entities)
    return tuple(defuse(s) for s in said) or ("The text names no entity of these types",)


# --- questions ---


def questions(schema: Any, example: Any) -> dict[str, tuple[str, ...]]:
    """By type.

    Source: "Query Prior Matters: A MRC Framework for Multimodal Named Entity Recognition" (ACM MM 2022) and
    MNER-QG (AAAI 2023): a question drawn from the annotation guideline does better than a keyword or the type's
    name. Several wordings follow MUMRC (ICME 2023). The wordings here are ours.
    """
    return {t.name: _of_type(t) for t in schema.types}


def _of_type(kind: ner.EntityType) -> tuple[str, ...]:
    guideline = sentence(kind.guideline)
    return (
        f'Which words in the text are names of the type "{kind.title}"? {guideline}',
        f"{guideline} Which mentions of this kind does the text contain?",
        f'Does the text name anything of the type "{kind.title}", and with which words?',
    )


# --- what a teacher wrote ---


def fits(value: Any) -> bool:
    """An object, or a list that may be the entities; prose such as ``[1]`` is neither."""
    return isinstance(value, dict) or (
        isinstance(value, list) and all(isinstance(v, dict) for v in value) and value != []
    )


def read(value: Any, example: Any, schema: Any, repairs: list[str]) -> Parsed:
    """The entities, each aligned to the text, in reading order."""
    entities: list[ner.Entity] = []
    mentions = _mentions(value, schema, repairs)
    for (text, label), place in zip(mentions, _places(example.text, [t for t, _ in mentions]), strict=True):
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


def _places(text: str, mentions: list[str]) -> list[Span | None]:
    """The mentions' places; the longest is sought first, lest ``New York`` take its place in ``New York Times``."""
    aligner = Aligner(text)
    order = sorted(range(len(mentions)), key=lambda n: -len(mentions[n]))
    found = {n: aligner.find(mentions[n]) or aligner.holds(mentions[n]) for n in order}
    return [found[n] for n in range(len(mentions))]


def _mentions(value: Any, schema: ner.Schema, repairs: list[str]) -> list[tuple[str, str]]:
    """(text, label) pairs of ``{"entities": [...]}``, of the bare list, or of ``{label: [texts]}``."""
    if isinstance(value, dict) and (not value or {"text", "type"} <= value.keys()):
        raise Wrong("schema", f"no list of entities: {str(value)[:80]}")
    if isinstance(value, dict) and "entities" not in value:
        repairs.append("by_type")
        return [(mention(t), _label(k, schema, repairs)) for k, texts in value.items() for t in _texts(k, texts)]
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
        pairs.append((mention(entity["text"]), _label(entity["type"], schema, repairs)))
    return pairs


def _texts(key: str, texts: Any) -> list[Any]:
    if texts is None:
        return []
    if isinstance(texts, str):
        return [] if texts.strip().lower() in NULLS else [texts]
    if isinstance(texts, list):
        return texts
    raise Wrong("schema", f"{key}: not a list of mentions")


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


def lines(body: str, example: Any, schema: Any, repairs: list[str]) -> Any:
    """``mention | type`` lines, all of them; ``none`` alone says that there are no entities."""
    lines = lines_of(body)
    if len(lines) == 1 and lines[0].lower().strip(".") in NULLS | {"no entities", "no named entities", "[]"}:
        return {"entities": []}
    pairs = [line.rsplit("|", 1) for line in lines]
    if any(len(p) != 2 or not p[0].strip() for p in pairs):
        raise Wrong("not_json", f"{lines[0][:80]!r}")
    return {"entities": [{"text": t.strip(), "type": k.strip()} for t, k in pairs]}


# --- probes ---

_PROBED = ner.Schema(
    types=(
        ner.EntityType(name="PER", title="person", guideline="Name of a person."),
        ner.EntityType(name="LOC", title="location", guideline="Name of a place."),
    )
)


def probes() -> list[tuple[Any, Any]]:
    """Posts."""
    text = "Kobe Bryant lands in Los Angeles"
    gold = ner.Answer(
        entities=(
            ner.Entity(text="Kobe Bryant", type="PER", start=0, end=11),
            ner.Entity(text="Los Angeles", type="LOC", start=21, end=32),
        )
    )
    later = ner.Answer(entities=(ner.Entity(text="Kobe Bryant", type="PER", start=5, end=16),))
    named = ner.Answer(entities=(ner.Entity(text="rules", type="PER", start=11, end=16),))
    examples = [
        ner.Example(id="plain", text=text, gold=gold),
        ner.Example(id="picture", text=f"RT : {text}", gold=later, images=(PICTURE,)),
        ner.Example(id="pictures", text="nothing here", gold=ner.Answer(), images=(PICTURE, PICTURE)),
        ner.Example(id="context", text=f"via {text}", context=CONTEXT, gold=ner.Answer()),
        ner.Example(id="empty context", text=f"so {text}", context={"caption": " ", "ocr": ""}),
        ner.Example(id="hostile", text=HOSTILE, context={"caption": HOSTILE}, gold=named, images=(PICTURE,)),
    ]
    return [(example, _PROBED) for example in examples]
