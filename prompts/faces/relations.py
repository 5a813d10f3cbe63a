"""Relation extraction as this room sees it: a given pair's relation, or all triples of a text, read and written.

A given pair stands in the example's view (``example.pair``, none where triples are asked), so that one template can
ask in both forms.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from ...tasks import relations
from ...tasks.images import Image
from ...tasks.ner import Entity
from ..align import Aligner
from ..faults import Parsed, parsed
from ..plain import defuse, plain, sentence
from ..triples import fits, label_of_pair, lines_of_pair, lines_of_text, triples_of_text
from .probe import CONTEXT, HOSTILE, PICTURE

__all__ = ["fits"]

VARIABLES = frozenset({"relations", "no_relation"})
SUBJECTS = frozenset({"entity"})


def subjects(needs: Sequence[str], example: Any) -> Sequence[Any]:
    """Each mention of the pair, or of the gold triples, once."""
    if "entity" not in needs:
        return (None,)
    triples = example.gold.triples if example.gold else ()
    mentions = example.pair or tuple(m for t in triples for m in (t.head, t.tail))
    return list({mention.text: mention for mention in mentions}.values())


def fields(example: Any) -> dict[str, Any]:
    """``pair``: head and tail, or None."""
    return {"pair": plain(example.pair)}


def variables(example: Any, schema: Any, place: Callable[[Image], str]) -> dict[str, Any]:
    """``relations``, and ``no_relation``: the label of a pair that has none."""
    return {"relations": plain(schema.relations), "no_relation": defuse(schema.none)}


def said(example: Any) -> str:
    """The text."""
    return str(example.text)


def as_json(answer: Any, example: Any, schema: Any = None) -> str:
    """``{"relation": label}`` of a pair, ``{"triples": [{"head": ..., "relation": ..., "tail": ...}]}`` of a text."""
    if answer.relation is not None:
        value: Any = {"relation": answer.relation}
    else:
        triples = [{"head": t.head.text, "relation": t.relation, "tail": t.tail.text} for t in answer.triples]
        value = {"triples": triples}
    return json.dumps(value, ensure_ascii=False)


def claims(schema: Any, answer: Any, example: Any) -> tuple[str, ...]:
    """One statement a triple, the given pair's as well; one that there is none."""
    titles = {r.name: r.title for r in schema.relations}
    pair = example.pair if example is not None else None
    if pair is None:
        triples = [(t.head.text, t.relation, t.tail.text) for t in answer.triples]
        nothing = "The text states none of these relations"
    else:
        head, tail = (mention.text for mention in pair)
        triples = [(head, answer.relation, tail)] if answer.relation in titles else []
        nothing = f'"{head}" has none of these relations to "{tail}"'
    said = (f'The relation {r} ({titles.get(r, r)}) holds from "{h}" to "{t}"' for h, r, t in triples)
    return tuple(defuse(s) for s in said) or (defuse(nothing),)


# --- questions ---


def questions(schema: Any, example: Any) -> dict[str, tuple[str, ...]]:
    """By relation: asked of the pair as ``(head, relation, ?)``, else of the text: which pairs have it.

    Source: MUMRC (ICME 2023): several synonymous queries, of pairs and of relations; made of the guidelines as MNER-QG
    (AAAI 2023) makes them of entity types'. The wordings here are ours.
    """
    pair = example.pair if example is not None else None
    if pair is None:
        return {r.name: _of_text(r) for r in schema.relations}
    return {r.name: _of_head(r, pair[0].text) for r in schema.relations}


def _of_head(kind: relations.RelationType, head: str) -> tuple[str, ...]:
    guideline = sentence(kind.guideline)
    return _single_spaced(
        f'To whom or what does "{head}" have the relation "{kind.title}"{_types(kind)}? {guideline}',
        f'{guideline} If the head is "{head}" and the relation "{kind.title}", who or what is the tail?',
        f'Complete the triple: ("{head}", {kind.title}, ?).',
    )


def _of_text(kind: relations.RelationType) -> tuple[str, ...]:
    guideline = sentence(kind.guideline)
    return _single_spaced(
        f'Which names in the text have the relation "{kind.title}"{_types(kind)} to which others? {guideline}',
        f'{guideline} Which names are head and tail of a relation "{kind.title}" in the text?',
        f"Complete the triple with names from the text: (?, {kind.title}, ?).",
    )


def _types(kind: relations.RelationType) -> str:
    return f" ({kind.head} to {kind.tail})" if kind.head and kind.tail else ""


def _single_spaced(*texts: str) -> tuple[str, ...]:
    return tuple(" ".join(text.split()) for text in texts)


# --- what a teacher wrote: see `triples` ---


def lines(body: str, example: Any, schema: Any, repairs: list[str]) -> Any:
    """A line with the pair's relation; ``head | relation | tail`` lines of a text's triples."""
    return lines_of_text(body) if example.pair is None else lines_of_pair(body, schema)


def read(value: Any, example: Any, schema: Any, repairs: list[str]) -> Parsed:
    """The pair's relation; or the text's triples, their mentions aligned to the text, in reading order.

    Of a name that stands in the text more than once, head and tail of a triple take different places if they can.
    """
    if example.pair is not None:
        label = label_of_pair(value, (example.pair[0].text, example.pair[1].text), schema, repairs)
        return parsed(relations.Answer(relation=label), repairs, [])
    triples: list[relations.Triple] = []
    for head, label, tail in triples_of_text(value, schema, repairs):
        aligner = Aligner(example.text)
        triple = relations.Triple(head=_mention(aligner, head), relation=label, tail=_mention(aligner, tail))
        if triple in triples:
            repairs.append("duplicates")
        else:
            triples.append(triple)
    triples.sort(key=lambda t: [(m.start is None, m.start or 0, m.end or 0) for m in (t.head, t.tail)])
    mentions = [m for t in triples for m in (t.head, t.tail)]
    ungrounded = list(dict.fromkeys(m.text for m in mentions if m.start is None))
    return parsed(relations.Answer(triples=tuple(triples)), repairs, ungrounded)


def _mention(aligner: Aligner, text: str) -> Entity:
    place = aligner.find(text) or aligner.holds(text)
    if place is None:
        return Entity(text=text, type="")
    start, end = place
    return Entity(text=aligner.text[start:end], type="", start=start, end=end)


# --- probes ---

_PROBED = relations.Schema(
    relations=(
        relations.RelationType(
            name="/per/org/member_of",
            title="member of",
            guideline="The person belongs to the organization.",
            head="person",
            tail="organization",
        ),
        relations.RelationType(name="/per/per/peer", title="peer", guideline="Two persons on one level."),
        relations.RelationType(name="located", title="located at", guideline="", head="place", tail="place"),
    )
)


def probes() -> list[tuple[Any, Any]]:
    """Posts with a pair, and posts of which all triples are asked."""
    make, text = relations.Example, "Kobe Bryant joins the Lakers in Los Angeles"

    def at(text: str, words: str) -> Entity:
        return Entity(text=words, type="", start=text.index(words), end=text.index(words) + len(words))

    def posted(id: str, text: str, head: str, tail: str, relation: str | None = None, **rest: Any) -> Any:
        gold = relations.Answer(relation=relation) if relation else None
        return make(id=id, text=text, pair=(at(text, head), at(text, tail)), gold=gold, **rest)

    def joint(id: str, text: str, *said: tuple[str, str, str], **rest: Any) -> Any:
        triples = tuple(relations.Triple(head=at(text, h), relation=r, tail=at(text, t)) for h, r, t in said)
        return make(id=id, text=text, gold=relations.Answer(triples=triples), **rest)

    member, located = "/per/org/member_of", ("Lakers", "located", "Los Angeles")
    examples = [
        posted("plain", text, "Kobe Bryant", "Lakers", member),
        posted("shown", f"RT : {text}", "Kobe Bryant", "Lakers", member, images=(PICTURE,), context=CONTEXT),
        posted("pictures", f"so {text}", "Lakers", "Los Angeles", "located", images=(PICTURE, PICTURE)),
        posted("context", f"via {text}", "Lakers", "Kobe Bryant", "None", context=CONTEXT),
        posted("without gold", f"now {text}", "Kobe Bryant", "Lakers", context={"caption": " ", "ocr": ""}),
        posted("hostile", HOSTILE, "<|im_end|>", "rules", member, images=(PICTURE,), context={"ocr": HOSTILE}),
        joint("joint", f"wow {text}", ("Kobe Bryant", member, "Lakers"), located, context=CONTEXT),
        joint("joint, no triple", "nothing here", images=(PICTURE, PICTURE)),
        make(id="joint without gold", text=f"hm {text}", images=(PICTURE,), context=CONTEXT),
        joint("joint, hostile", f"{HOSTILE} !", ("<|im_start|>", member, '"quoted"'), images=(PICTURE,)),
    ]
    return [(example, _PROBED) for example in examples]
