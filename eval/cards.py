"""Examples as a report shows them: the source, gold, and what each system answered, judged; for all six tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from ..tasks import ner
from ..tasks.images import Image
from . import attributes, relations
from .sections import Card, Line, Mark

Verdict = Literal["", "right", "wrong"]

#: So many of a ranking's entities are shown.
_RANKED = 5


def card(task_key: str, example: Any, answers: Mapping[str, Any]) -> Card:
    """An example with its gold (if it has any) and what each system answered (None: unparseable), judged.

    A `KeyError` names a task that there is not.
    """
    source, line = _OF_TASK[task_key]
    said = {**({"gold": example.gold} if example.gold else {}), **answers}
    lines = [Line("text", example.text, source(example))] if source else []
    lines += [_line(line, who, example, answer) for who, answer in said.items()]
    return Card(example.id, tuple(lines), pictures(example))


def pictures(example: Any) -> tuple[Image, ...]:
    """An example's own pictures, and those of the entity that is gold, if it is among its candidates."""
    best = getattr(example.gold, "best", None)
    right = [entity for entity in getattr(example, "candidates", ()) if entity.id == best]
    return (*example.images, *(image for entity in right for image in entity.images[:1]))


def _line(line: Any, who: str, example: Any, answer: Any) -> Line:
    if answer is None:
        return Line(who, "no answer that could be parsed", verdict="wrong")
    text, marks, right = line(example, answer)
    judged: Verdict = "" if who == "gold" or example.gold is None else "right" if right else "wrong"
    return Line(who, text, marks, judged)


#: What a task's line is made of: text, marks in it, and whether the answer is what gold says.
Said = tuple[str, tuple[Mark, ...], bool]


def _ner(example: Any, answer: Any) -> Said:
    placed = [e for e in answer.entities if e.start is not None and e.end is not None]
    lost = [f"{e.text} [{e.type}]" for e in answer.entities if e.start is None]
    text = example.text + (f"  (not in the text: {', '.join(lost)})" if lost else "")
    gold = {(e.start, e.end, e.type) for e in example.gold.entities} if example.gold else set()
    right = {(e.start, e.end, e.type) for e in placed} == gold and not lost
    return text, tuple(_mark(e, e.type) for e in placed), right


def _attributes(example: Any, answer: Any) -> Said:
    said = "; ".join(f"{name}: {' / '.join(attributes.values(answer, name)) or '–'}" for name in answer.values)
    gold = example.gold.values if example.gold else {}
    slots = [(attributes.values(example.gold, name), attributes.values(answer, name)) for name in gold]
    return said or "nothing", (), all(attributes.case(true, given) in ("vc", "nn") for true, given in slots)


def _relations(example: Any, answer: Any) -> Said:
    triples = [f"{t.head.text} — {t.relation} → {t.tail.text}" for t in answer.triples]
    right = example.gold is not None and relations.agreement(example, answer) == 1
    return answer.relation or "; ".join(triples) or "no triple", (), right


def _ranking(example: Any, answer: Any) -> Said:
    if getattr(answer, "links", ()):
        said = [f"{link.mention.text} → {_name(example, link.entity.best)}" for link in answer.links]
        return "; ".join(said), (), example.gold is not None and _links(answer) == _links(example.gold)
    said = [_name(example, id) for id in answer.ranking[:_RANKED]]
    more = len(answer.ranking) - len(said)
    text = " > ".join(said) + (f" > {more:,} more" if more else "")
    return text or "none of them (NIL)", (), example.gold is not None and answer.best == example.gold.best


def _links(answer: Any) -> set[tuple[Any, ...]]:
    return {(link.mention.start, link.mention.end, link.entity.best) for link in answer.links}


def _name(example: Any, id: str | None) -> str:
    """An entity's name with its id, where it is among the candidates."""
    if id is None:
        return "NIL"
    names = [entity.name for entity in example.candidates if entity.id == id and entity.name]
    return f"{names[0]} ({id})" if names and names[0] != id else id


def _pair(example: Any) -> tuple[Mark, ...]:
    return tuple(map(_mark, example.pair, ("head", "tail"))) if example.pair else ()


def _mention(example: Any) -> tuple[Mark, ...]:
    return (_mark(example.mention, "mention"),) if example.mention else ()


def _mark(mention: ner.Entity, label: str) -> Mark:
    return Mark(mention.start or 0, mention.end or 0, label)


def _unmarked(example: Any) -> tuple[Mark, ...]:
    return ()


#: For each task the marks in its source line (None: an answer's own line shows the text), and what its lines say.
_OF_TASK: dict[str, tuple[Any, Any]] = {
    "ner": (None, _ner),
    "attributes": (_unmarked, _attributes),
    "relations": (_pair, _relations),
    "completion": (_unmarked, _ranking),
    "alignment": (_unmarked, _ranking),
    "linking": (_mention, _ranking),
}
