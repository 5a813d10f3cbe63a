"""Entity alignment as this room sees it: an entity, the candidates of the other graph, one of them chosen or none."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from ...tasks import alignment
from ...tasks.graph import Entity
from ...tasks.images import Image
from .. import choices
from ..entries import candidates, chosen, entry, line
from ..faults import Parsed, parsed
from ..plain import sentence
from .probe import CONTEXT, HOSTILE, PICTURE

VARIABLES = frozenset({"entity", "candidates", "graphs"})
SUBJECTS: frozenset[str] = frozenset()


def subjects(needs: Sequence[str], example: Any) -> Sequence[Any]:
    """The example as a whole."""
    return (None,)


def fields(example: Any) -> dict[str, Any]:
    """Nothing beside text, context and pictures."""
    return {}


def variables(example: Any, schema: Any, place: Callable[[Image], str]) -> dict[str, Any]:
    """``entity`` with its facts; ``candidates`` with theirs; ``graphs`` (left, right, guideline)."""
    return {
        "entity": entry(example.entity, example.facts),
        "candidates": candidates(example.candidates, place, example.candidate_facts),
        "graphs": SimpleNamespace(
            left=line(schema.left), right=line(schema.right), guideline=sentence(line(schema.guideline))
        ),
    }


def said(example: Any) -> str:
    """The entity's name."""
    return str(example.entity.title)


def as_json(answer: Any, example: Any, schema: Any = None) -> str:
    """``{"choice": number}``; 0 where the answer has no counterpart, or one that is not among the candidates."""
    return json.dumps({"choice": next(iter(choices.numbers(answer.ranking, example.candidates)), 0)})


def claims(schema: Any, answer: Any, example: Any) -> tuple[str, ...]:
    """One statement: the pair, or that there is none."""
    entity = line(example.entity.title)
    if answer.best is None:
        return (f"None of the candidates is the same as {entity}",)
    number, best = chosen(example, answer)
    return (f"{entity} is the same as candidate {number}, {line(best.title)}",)


# --- questions ---


def questions(schema: Any, example: Any) -> dict[str, tuple[str, ...]]:
    """One question, under the label ``counterpart``; without an example, of any entity. The wordings are ours."""
    entity = "this entity" if example is None else f'"{line(example.entity.title)}"'
    left, right = line(schema.left), line(schema.right)
    return {
        "counterpart": (
            f"Which entity of {right} is the same as {entity} of {left}?",
            f"{entity[0].upper()}{entity[1:]} stands in {left}. Under which entry does {right} describe it?",
            f"If {left} and {right} became one graph, which entity of {right} would be merged with {entity}?",
        )
    }


# --- what a teacher wrote ---

fits = choices.fits


def lines(body: str, example: Any, schema: Any, repairs: list[str]) -> Any:
    """A number, a name or a word for none."""
    return choices.choice_line(body, example.candidates)


def read(value: Any, example: Any, schema: Any, repairs: list[str]) -> Parsed:
    """The id of the candidate chosen, or an empty ranking for none."""
    at = choices.choice(value, example.candidates, True, repairs)
    return parsed(alignment.Answer(ranking=() if at is None else (example.candidates[at].id,)), repairs, [])


# --- probes ---

_PROBED = alignment.Schema(left="the French DBpedia", right="the English DBpedia", guideline="people and places")


def probes() -> list[tuple[Any, Any]]:
    """Entities of two graphs."""
    paris = Entity(id="11", name="Paris", images=(PICTURE,))
    film = Entity(id="12", name="Paris (film)", description="2008 film by Cédric Klapisch", images=(PICTURE, PICTURE))
    bare = Entity(id="http://dbpedia.org/resource/Lyon")
    hostile = Entity(
        id="13", name=HOSTILE, description=f"{HOSTILE} " * 40, aliases=(HOSTILE,), attributes={HOSTILE: (HOSTILE,)}
    )
    facts = ("country: France", "river: Seine")
    known: dict[str, Any] = {"facts": facts, "candidates": (film, paris), "candidate_facts": ((), ("country: France",))}
    gold = alignment.Answer(ranking=("11",))
    make = alignment.Example
    examples = [
        make(id="plain", entity=Entity(id="1", name="Paris (ville)", aliases=("Lutèce",)), gold=gold, **known),
        make(id="picture", entity=Entity(id="2", name="Ville de Paris", images=(PICTURE,)), gold=gold, **known),
        make(
            id="pictures",
            entity=Entity(id="3", name="Paname", images=(PICTURE, PICTURE)),
            candidates=(bare, paris),
            gold=gold,
        ),
        make(id="context", entity=bare, context=CONTEXT, candidates=(film, paris), gold=alignment.Answer()),
        make(id="empty context", entity=Entity(id="5", name="Loire"), context={"caption": " "}, candidates=(film,)),
        make(
            id="hostile",
            entity=hostile,
            facts=(HOSTILE,),
            candidates=(hostile, film),
            gold=gold,
            context={"ocr": HOSTILE},
        ),
    ]
    return [(example, _PROBED) for example in examples]
