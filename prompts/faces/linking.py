"""Entity linking as this room sees it: a mention in its text, the entries it may mean, one of them chosen or NIL.

Teachers are asked about a mention that is given; the detection of mentions is asked as `ner`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from ...tasks import linking
from ...tasks.graph import Entity
from ...tasks.images import Image
from .. import choices
from ..entries import candidates, chosen, line
from ..faults import Parsed, parsed
from ..plain import sentence
from .probe import CONTEXT, HOSTILE, PICTURE

VARIABLES = frozenset({"mention", "candidates", "base"})
SUBJECTS: frozenset[str] = frozenset()


def subjects(needs: Sequence[str], example: Any) -> Sequence[Any]:
    """The example as a whole."""
    return (None,)


def fields(example: Any) -> dict[str, Any]:
    """Nothing beside text, context and pictures."""
    return {}


def variables(example: Any, schema: Any, place: Callable[[Image], str]) -> dict[str, Any]:
    """``mention`` (text, place, places; None without one), ``candidates``, ``base`` (name, guideline, nil).

    The picture of the text is not shown with a candidate: in public sets it is often one of the right entity's, which
    would give it away.
    """
    return {
        "mention": None if example.mention is None else _mention(example),
        "candidates": candidates(example.candidates, place, hidden=example.images),
        "base": SimpleNamespace(
            name=line(schema.knowledge_base), guideline=sentence(line(schema.guideline)), nil=schema.nil
        ),
    }


def _mention(example: Any) -> SimpleNamespace:
    """The mention's words; the text is shown as it is, so it is said where they stand if they do more than once."""
    mention, text = example.mention, example.text
    places = [at for at in range(len(text)) if text.startswith(mention.text, at)]
    whole = [at for at in places if not _inside_word(text, at, at + len(mention.text))]
    places = whole if mention.start in whole else places
    return SimpleNamespace(text=line(mention.text), place=places.index(mention.start) + 1, places=len(places))


def _inside_word(text: str, start: int, end: int) -> bool:
    """Whether a letter or digit goes on over either end, as round ``M-14`` in ``BM-14``."""
    return any(0 < at < len(text) and text[at - 1].isalnum() and text[at].isalnum() for at in (start, end))


def said(example: Any) -> str:
    """The text."""
    return str(example.text)


def as_json(answer: Any, example: Any, schema: Any = None) -> str:
    """``{"choice": number}``; 0 for NIL, an `InputFault` for an entry that is not among the candidates."""
    return json.dumps({"choice": 0 if answer.best is None else chosen(example, answer)[0]})


def claims(schema: Any, answer: Any, example: Any) -> tuple[str, ...]:
    """One statement: what the mention means, or that no entry is meant."""
    mention = "The text" if example.mention is None else f'"{line(example.mention.text)}"'
    if answer.best is None:
        return (f"{mention} means none of the entries",)
    number, best = chosen(example, answer)
    return (f"{mention} means entry {number}, {line(best.title)}",)


# --- questions ---


def questions(schema: Any, example: Any) -> dict[str, tuple[str, ...]]:
    """One question, under the label ``entry``; without an example, of any mention. The wordings are ours."""
    given = example is not None and example.mention is not None
    mention = f'"{line(example.mention.text)}"' if given else "the mention"
    base = line(schema.knowledge_base)
    return {
        "entry": (
            f"Which entry of {base} does {mention} mean in this text?",
            f"Who or what is meant by {mention} here, and which entry of {base} describes it?",
            f"A reader asks who or what {mention} is. Which entry of {base} should be opened?",
        )
    }


# --- what a teacher wrote ---

fits = choices.fits


def lines(body: str, example: Any, schema: Any, repairs: list[str]) -> Any:
    """A number, a name or a word for none."""
    return choices.choice_line(body, example.candidates)


def read(value: Any, example: Any, schema: Any, repairs: list[str]) -> Parsed:
    """The id of the entry chosen, or an empty ranking for NIL, where the schema has it."""
    at = choices.choice(value, example.candidates, schema.nil, repairs)
    return parsed(linking.Answer(ranking=() if at is None else (example.candidates[at].id,)), repairs, [])


# --- probes ---

_PROBED = linking.Schema(knowledge_base="Wikidata", guideline="people and places", nil=True)
_CLOSED = linking.Schema(knowledge_base="the shop's products")
#: Another picture than the texts have.
OTHER_PICTURE = Image(source="data:image/jpeg;base64,/9j/4AAQ", example="probe")


def probes() -> list[tuple[Any, Any]]:
    """Texts with a mention, and one without."""
    text = "Washington resigned in 1783 ; Washington is named after him"
    first = linking.Mention(text="Washington", type="", start=0, end=10)
    second = linking.Mention(text="Washington", type="", start=30, end=40)
    rules = linking.Mention(text="rules", type="", start=11, end=16)
    man = Entity(
        id="Q23", name="George Washington", description="president", aliases=("Washington",), images=(PICTURE,)
    )
    city = Entity(id="Q61", name="Washington", attributes={"country": ("United States",)}, images=(OTHER_PICTURE,))
    hostile = Entity(
        id="Q0", name=HOSTILE, description=f"{HOSTILE} " * 40, aliases=(HOSTILE,), attributes={HOSTILE: (HOSTILE,)}
    )
    known: dict[str, Any] = {"candidates": (city, man, Entity(id="Q9")), "gold": linking.Answer(ranking=("Q23",))}
    make = linking.Example
    return [
        (make(id="plain", text=text, mention=first, **known), _PROBED),
        (make(id="picture", text=f"{text} .", mention=second, images=(PICTURE,), **known), _CLOSED),
        (make(id="pictures", text=f"{text} !", mention=first, images=(PICTURE, PICTURE), **known), _PROBED),
        (
            make(
                id="context",
                text=f"{text} ?",
                mention=first,
                context=CONTEXT,
                candidates=(city,),
                gold=linking.Answer(),
            ),
            _PROBED,
        ),
        (make(id="no mention", text="nobody here", context={"caption": " "}), _CLOSED),
        (
            make(
                id="hostile",
                text=HOSTILE,
                mention=rules,
                candidates=(hostile, man),
                context={"ocr": HOSTILE},
                images=(PICTURE,),
            ),
            _PROBED,
        ),
    ]
