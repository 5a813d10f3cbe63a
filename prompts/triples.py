"""Teachers' relations: a label for a given pair, triples for a text; JSON in several shapes, or lines.

A label is meant by its name, its title, or the last part of a name that is a path (``/per/org/member_of``), in any
case and with blanks, underscores or hyphens between its words; one that could be two labels is ``unknown_label``.
"""

from __future__ import annotations

import re
from typing import Any

from ..tasks.relations import Schema
from .faults import NULLS, Wrong, lines_of, mention
from .plain import defuse

#: What says that there is no relation, in lower case.
NONE = NULLS | {"no relation", "no relations", "no triple", "no triples", "[]"}
#: Keys that models use in place of the first of each line.
_LISTS = ("triples", "relations", "triplets")
_HEAD = ("head", "subject")
_LABEL = ("relation", "predicate", "label")
_TAIL = ("tail", "object")

#: Head, label and tail as said; both ends are None where only a label was said.
Statement = tuple[Any, Any, Any]


def fits(value: Any) -> bool:
    """An object, or a list of objects or of threes; prose such as ``[1]`` is neither."""
    return isinstance(value, dict) or (
        isinstance(value, list)
        and value != []
        and all(isinstance(v, dict) or (isinstance(v, list) and len(v) == 3) for v in value)
    )


def label_of_pair(value: Any, pair: tuple[str, str], schema: Schema, repairs: list[str]) -> str:
    """The label given to the pair, ``none``'s included.

    A teacher may say the whole triple (``restated``). One that it says from tail to head (``reversed``) gives its
    label if none is said from head to tail and the relation's ends differ in type, so that it can only hold one way.
    """
    statements = _statements(value, repairs)
    ends = _folded_mention(pair[0]), _folded_mention(pair[1])
    found: dict[str, list[str]] = {"": [], "restated": [], "reversed": []}
    for head, said, tail in statements:
        there = _folded_mention(head), _folded_mention(tail)
        way = "" if there == ("", "") else "restated" if there == ends else "reversed" if there == ends[::-1] else None
        if way is not None:
            found[way].append(_label(said, schema, repairs))
    if statements and not any(found.values()):
        raise Wrong("schema", f"about another pair: {str(statements[0])[:80]}")
    way = next((way for way, labels in found.items() if labels), "restated")
    repairs += [way] if way else []
    labels = sorted(set(found[way])) or [schema.none]
    if len(labels) > 1:
        raise Wrong("schema", f"several relations of one pair: {', '.join(labels)}")
    if way == "reversed" and not _one_way(labels[0], schema):
        raise Wrong("schema", f"said from tail to head, and the types of {labels[0]} do not tell its direction")
    return labels[0]


def _one_way(label: str, schema: Schema) -> bool:
    """Whether the relation's head and tail are of two types, so that only one direction makes sense."""
    return any(r.name == label and r.head and r.tail and r.head != r.tail for r in schema.relations)


def triples_of_text(value: Any, schema: Schema, repairs: list[str]) -> list[tuple[str, str, str]]:
    """(head, label, tail) of every triple said; those with ``none``'s label are left out (``none``).

    Also ``{label: [[head, tail], ...]}``, as models answer questions relation by relation (``by_relation``).
    """
    if isinstance(value, dict) and _key(value, _LISTS, list) is None:
        if not value or _key(value, (*_LISTS, *_LABEL)) is not None:
            raise Wrong("schema", f"no list of triples: {str(value)[:80]}")
        repairs.append("by_relation")
        statements = [(h, label, t) for label, pairs in value.items() for h, t in _pairs(label, pairs, repairs)]
        said = {label: _label(label, schema, repairs) for label in value}
    else:
        statements = _statements(value, repairs)
        said = {}
    triples = []
    for head, label, tail in statements:
        known = said[label] if said else _label(label, schema, repairs)
        if known == schema.none:
            repairs.append("none")
        else:
            triples.append((mention(head), known, mention(tail)))
    return triples


# --- shapes ---


def _statements(value: Any, repairs: list[str]) -> list[Statement]:
    """Those of ``{"triples": [...]}``, of the bare list, or the only one, ``{"relation": ...}``."""
    if isinstance(value, list):
        repairs.append("bare_list")
        return [_statement(v, repairs) for v in value]
    key = _key(value, _LISTS, list)
    if key is None:
        return [_statement(value, repairs)]
    if key != _LISTS[0]:
        repairs.append("keys")
    if len(value) > 1:
        repairs.append("extra_keys")
    return [_statement(v, repairs) for v in value[key]]


def _statement(value: Any, repairs: list[str]) -> Statement:
    """A statement of an object, of a list of three, or of a label alone."""
    if isinstance(value, str):
        repairs.append("list")
        return None, value, None
    if isinstance(value, list) and len(value) == 3:
        repairs.append("list")
        return value[0], value[1], value[2]
    keys = [_key(value, names) for names in (_HEAD, _LABEL, _TAIL)] if isinstance(value, dict) else [None] * 3
    if keys[1] is None or (keys[0] is None) != (keys[2] is None):
        raise Wrong("schema", f"not a triple with head, relation and tail: {str(value)[:80]}")
    known = [key for key in keys if key is not None]
    if set(known) - {_HEAD[0], _LABEL[0], _TAIL[0]}:
        repairs.append("keys")
    if len(value) > len(known):
        repairs.append("extra_keys")
    head, label, tail = (None if key is None else value[key] for key in keys)
    if isinstance(label, list) and len(label) == 1:
        repairs.append("list")
        label = label[0]
    return head, label, tail


def _pairs(label: str, pairs: Any, repairs: list[str]) -> list[tuple[Any, Any]]:
    """The pairs under a relation: ``[[head, tail], ...]``, objects with head and tail, or none."""
    if pairs is None or (isinstance(pairs, str) and pairs.strip().lower() in NONE):
        return []
    if isinstance(pairs, list) and len(pairs) == 2 and all(isinstance(end, str) for end in pairs):
        pairs = [pairs]
    if not isinstance(pairs, list):
        raise Wrong("schema", f"{label[:80]}: not a list of pairs")
    found = []
    for pair in pairs:
        if isinstance(pair, list) and len(pair) == 2:
            found.append((pair[0], pair[1]))
        elif isinstance(pair, dict):
            head, _, tail = _statement({_LABEL[0]: label, **pair}, repairs)
            found.append((head, tail))
        else:
            raise Wrong("schema", f"{label[:80]}: not a pair: {str(pair)[:80]}")
    return found


def _key(value: dict[str, Any], names: tuple[str, ...], kind: type = object) -> str | None:
    """The first of these keys that the object has, with a value of that kind."""
    return next((name for name in names if name in value and isinstance(value[name], kind)), None)


# --- words ---


def _folded_mention(value: Any) -> str:
    """For comparison with the pair as the teacher was shown it: no blanks, no case."""
    return "" if value is None else "".join(defuse(str(value)).split()).casefold()


def _label(said: Any, schema: Schema, repairs: list[str]) -> str:
    """The label meant, ``none``'s among them."""
    if said in (*schema.labels, schema.none):
        return str(said)
    folded = _folded(str(said)) if isinstance(said, str) else "null" if said is None else ""
    for names in (
        {r.name: r.name for r in schema.relations} | {schema.none: schema.none},
        {r.name: r.title for r in schema.relations},
        {r.name: r.name.rpartition("/")[2] for r in schema.relations},
    ):
        meant = [label for label, name in names.items() if folded and _folded(name) == folded]
        if len(meant) > 1:
            raise Wrong("unknown_label", f"{str(said)[:80]!r} may be {' or '.join(meant)}")
        if meant:
            repairs.append("labels")
            return meant[0]
    if folded and (folded in NONE or str(said).strip().lower() in NONE):
        repairs.append("labels")
        return schema.none
    raise Wrong("unknown_label", f"{str(said)[:80]!r}; there are: {', '.join((*schema.labels, schema.none))}")


def _folded(text: str) -> str:
    return " ".join(re.sub(r"[\s_/-]+", " ", text).lower().split())


# --- lines ---

_REASON = re.compile(r"\s+[-–—]\s.*", re.DOTALL)
_ANSWER = re.compile(r"(?:the )?(?:relation|answer|label)(?: is)?\s*[:=]?\s*", re.IGNORECASE)


def lines_of_pair(body: str, schema: Schema) -> Any:
    """The first line: a label, ``label - reason`` or a triple; others are reasons, unless one says another label."""
    lines = lines_of(body)
    first, *others = [_line(line, schema) for line in lines]
    reasons = bool(others)
    if first is None:
        first, reasons = _line(_REASON.sub("", lines[0]), schema), True
    if first is None:
        raise Wrong("not_json", f"{lines[0][:80]!r}")
    labels = sorted({said[0] for said in (first, *others) if said is not None})
    if len(labels) > 1:
        raise Wrong("schema", f"several relations of one pair: {', '.join(labels)}")
    return {**first[1], **({"note": ""} if reasons else {})}


def _line(line: str, schema: Schema) -> tuple[str, dict[str, str]] | None:
    """The label that a line says, alone or in ``head | label | tail``, and the line as JSON; None where it is prose."""
    parts = [part.strip(" \t\"'`*.") for part in line.split("|")]
    if len(parts) != 3:
        parts = [_ANSWER.sub("", line, count=1).strip(" \t\"'`*.")]
    try:
        label = _label(parts[len(parts) // 2], schema, [])
    except Wrong:
        return None
    keys = ("relation",) if len(parts) == 1 else ("head", "relation", "tail")
    return label, dict(zip(keys, parts, strict=True))


def lines_of_text(body: str) -> Any:
    """``head | relation | tail`` lines, all of them; ``none`` alone says that there are no triples."""
    lines = lines_of(body)
    if len(lines) == 1 and lines[0].lower().strip(" .") in NONE:
        return {"triples": []}
    parts = [[part.strip() for part in line.split("|")] for line in lines]
    if any(len(p) != 3 or not all(p) for p in parts):
        raise Wrong("not_json", f"{lines[0][:80]!r}")
    return {"triples": [{"head": h, "relation": r, "tail": t} for h, r, t in parts]}
