"""Graph completion as this room sees it: a triple with an open end, questions about it, candidates put in order."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from ...tasks import completion
from ...tasks.graph import Entity, Relation
from ...tasks.images import Image
from .. import choices
from ..entries import BRIEF, candidates, chosen, cut, entry, line, not_among
from ..faults import Parsed, parsed
from ..plain import sentence
from .probe import CONTEXT, HOSTILE, PICTURE

VARIABLES = frozenset({"given", "relation", "asked_side", "candidates"})
SUBJECTS: frozenset[str] = frozenset()


def subjects(needs: Sequence[str], example: Any) -> Sequence[Any]:
    """The example as a whole."""
    return (None,)


def fields(example: Any) -> dict[str, Any]:
    """Nothing beside text, context and pictures."""
    return {}


def variables(example: Any, schema: Any, place: Callable[[Image], str]) -> dict[str, Any]:
    """``given``, the entity at the known end; ``relation`` (name, guideline); ``asked_side``; ``candidates``."""
    return {
        "given": entry(example.given),
        "relation": SimpleNamespace(name=_name(example.relation), guideline=line(example.relation.guideline)),
        "asked_side": example.asked,
        "candidates": candidates(example.candidates, place),
    }


def said(example: Any) -> str:
    """The given entity's name. What explains it needs no relation, so its triples share one prompt and one call."""
    return str(example.given.title)


def as_json(answer: Any, example: Any, schema: Any = None) -> str:
    """``{"ranking": [numbers]}`` of the candidates that the answer ranks; an `InputFault` if it ranks none of them."""
    numbers = choices.numbers(answer.ranking, example.candidates)
    if not numbers:
        raise not_among(example)
    return json.dumps({"ranking": numbers})


def claims(schema: Any, answer: Any, example: Any) -> tuple[str, ...]:
    """One statement: the triple with the first entity of the ranking in it."""
    if answer.best is None:
        return ("No entity makes the triple true",)
    best = chosen(example, answer)[1]
    about = cut(best.description, BRIEF)
    return (f'At the "?" stands {line(best.title)}' + (f" ({about})" if about else ""),)


# --- questions ---


def questions(schema: Any, example: Any) -> dict[str, tuple[str, ...]]:
    """By relation and direction, ``relation | ?`` for the tail and ``? | relation`` for the head.

    A relation is asked from both ends; without an example, of any entity. Source: triples as reading questions
    ``(head, relation, ?)`` follow KGT5 (ACL 2022) and the queries of MUMRC (ICME 2023). The wordings here are ours.
    """
    if example is None:
        return dict(_asked(r, side, "this entity") for r in schema.relations for side in ("tail", "head"))
    return dict([_asked(example.relation, example.asked, f'"{line(example.given.title)}"')])


def _asked(relation: Relation, side: str, given: str) -> tuple[str, tuple[str, ...]]:
    name, guideline = _name(relation), sentence(relation.guideline)
    if side == "tail":
        label = f"{relation.name} | ?"
        texts = (
            f'What stands at the "?" in ({given}, {name}, ?)? {guideline}'.strip(),
            f'Follow the relation "{name}" from {given}. What does it lead to?',
            f'Of a triple the head is {given} and the relation is "{name}". What is its tail?',
        )
    else:
        label = f"? | {relation.name}"
        texts = (
            f'What stands at the "?" in (?, {name}, {given})? {guideline}'.strip(),
            f'Follow the relation "{name}" back from {given}. What does it come from?',
            f'Of a triple the relation is "{name}" and the tail is {given}. What is its head?',
        )
    return label, texts


def _name(relation: Relation) -> str:
    return line(relation.title or relation.name)


# --- what a teacher wrote ---

fits = choices.fits


def lines(body: str, example: Any, schema: Any, repairs: list[str]) -> Any:
    """Numbers or names, in one line or a line each."""
    return choices.ranking_line(body, example.candidates)


def read(value: Any, example: Any, schema: Any, repairs: list[str]) -> Parsed:
    """The candidates' ids in the order given."""
    ranked = choices.ranking(value, example.candidates, repairs)
    return parsed(completion.Answer(ranking=tuple(example.candidates[at].id for at in ranked)), repairs, [])


# --- probes ---

_PLAYS = Relation(name="/sports/pro_athlete/teams", title="plays for", guideline="From an athlete to a team.")
_PROBED = completion.Schema(relations=(_PLAYS, Relation(name="P19")))


def probes() -> list[tuple[Any, Any]]:
    """Triples."""
    team = Entity(id="/m/0jmk7", name="Los Angeles Lakers", description="basketball team", aliases=("Lakers", "LAL"))
    other = Entity(id="/m/0jm6n", name="Boston Celtics", images=(PICTURE, PICTURE), attributes={"founded": ("1946",)})
    bare = Entity(id="Q60")
    hostile = Entity(
        id="Q0", name=HOSTILE, description=f"{HOSTILE} " * 40, aliases=(HOSTILE,), attributes={HOSTILE: (HOSTILE,)}
    )
    kobe = Entity(id="/m/01kmd4", name="Kobe Bryant", description="American basketball player", aliases=("KB24",))
    known: dict[str, Any] = {"relation": _PLAYS, "candidates": (other, team, bare)}
    gold = completion.Answer(ranking=(team.id,))
    make = completion.Example
    shown = kobe.model_copy(update={"name": "Bryant, Kobe", "images": (PICTURE,)})
    twice = kobe.model_copy(update={"name": "K. Bryant", "images": (PICTURE, PICTURE)})
    examples = [
        make(id="plain", given=kobe, gold=gold, **known),
        make(id="picture", given=shown, gold=gold, **known),
        make(id="pictures", given=twice, gold=gold, **known),
        make(
            id="head", given=team, relation=_PROBED.relations[1], asked="head", candidates=(kobe, bare), context=CONTEXT
        ),
        make(id="bare", given=bare, relation=_PLAYS, candidates=(other,), context={"caption": " "}),
        make(
            id="hostile",
            given=hostile,
            relation=_PLAYS,
            candidates=(hostile, team),
            gold=gold,
            context={"caption": HOSTILE},
        ),
    ]
    return [(example, _PROBED) for example in examples]
