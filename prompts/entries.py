"""How an entity, or a candidate under its number, is shown to a teacher: by its words, never by its id.

An id may tell the answer (the numbers of DBP15K run in parallel, a file is called after its class), so a view has
none; `Entity.title` falls back to the id only where an entity has no name at all. Every text is one line, so that a
description cannot forge a candidate's line, and is without working control marks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from types import SimpleNamespace
from typing import Any

from ..tasks.graph import Entity, Ranking
from ..tasks.images import Image, ImageFault
from .faults import InputFault
from .plain import defuse

#: A description is shown whole up to so many characters; longer, it is cut at a word and ends in `CUT`. The first is
#: for the entity a question is about, the second for a candidate (99 of 100 in WikiMEL have less than 320).
WHOLE, BRIEF = 2000, 400
#: The mark of a cut; the templates explain it.
CUT = "…"
#: So many aliases and facts are shown; of more, it is said how many there are.
ALIASES, FACTS = 5, 12


def line(text: str) -> str:
    """A text of the data in one line, without working control marks."""
    return defuse(" ".join(text.split()))


def cut(text: str, limit: int) -> str:
    """The text as one line, whole if it has at most ``limit`` characters; else its first words, with `CUT` behind.

    A text without a blank among them (Chinese, say) is cut after ``limit`` characters.
    """
    whole = " ".join(text.split())
    if len(whole) <= limit:
        return defuse(whole)
    words = whole[: limit + 1].rpartition(" ")[0] or whole[:limit]
    return f"{defuse(words)} {CUT}"


def shortened(entity: Entity | None, candidates: Iterable[Entity] = ()) -> int:
    """How many descriptions of an example are cut in its prompts: the entity's own, if it has one, and candidates'."""
    lengths = [(e.description, BRIEF) for e in candidates] + ([(entity.description, WHOLE)] if entity else [])
    return sum(len(" ".join(text.split())) > limit for text, limit in lengths)


def entry(entity: Entity, facts: Sequence[str] = (), limit: int = WHOLE) -> SimpleNamespace:
    """An entity's words as a template sees them.

    The view has ``name``, ``description`` (see `cut`), ``aliases`` other than the name, and ``facts``: those given and
    its attributes, each a text of one line; a last one says how many more there are.
    """
    literal = [f"{name}: {', '.join(values)}" for name, values in entity.attributes.items() if values]
    others = {line(a).casefold(): line(a) for a in reversed(entity.aliases)}
    others = {key: alias for key, alias in reversed(others.items()) if key not in ("", line(entity.title).casefold())}
    return SimpleNamespace(
        name=line(entity.title),
        description=cut(entity.description, limit),
        aliases=_at_most(ALIASES, list(others.values())),
        facts=_at_most(FACTS, [line(f) for f in (*facts, *literal)]),
    )


def candidates(
    entities: Sequence[Entity],
    place: Callable[[Image], str],
    facts: Sequence[Sequence[str]] = (),
    hidden: Sequence[Image] = (),
) -> tuple[SimpleNamespace, ...]:
    """The candidates in their order: what `entry` shows, ``number`` from 1, and ``pictures``.

    At most the first picture of a candidate is shown, so ``pictures`` has one mark or none.

    Args:
        facts: their facts in parallel, if there are any.
        hidden: pictures that are not shown with a candidate, by their content (a mention's own picture may be among
            those of its entity, also under another path, and would give it away).
    """
    if facts and len(facts) != len(entities):
        raise InputFault(f"facts of {len(facts)} candidates, but there are {len(entities)}")
    banned = {_content(image) for image in hidden}
    views = []
    for at, entity in enumerate(entities):
        view = entry(entity, facts[at] if facts else (), BRIEF)
        view.number = at + 1
        images = (image for image in entity.images if not banned or _content(image) not in banned)
        view.pictures = tuple(place(image) for image in islice(images, 1))
        views.append(view)
    return tuple(views)


def chosen(example: Any, answer: Ranking) -> tuple[int, Entity]:
    """The number and the entity of an answer's best candidate; the fault of `not_among` where it is none."""
    for number, entity in enumerate(example.candidates, start=1):
        if entity.id == answer.best:
            return number, entity
    raise not_among(example)


def not_among(example: Any) -> InputFault:
    """What to raise where an answer ranks no candidate, so that it can be neither shown as an answer nor judged."""
    return InputFault(f"example {example.id}: the answer is not among its {len(example.candidates)} candidates")


def _at_most(limit: int, texts: Sequence[str]) -> tuple[str, ...]:
    shown = tuple(texts[:limit])
    return (*shown, f"and {len(texts) - limit} more") if len(texts) > limit else shown


def _content(image: Image) -> str:
    """What tells a picture from others: the hash of its content; where it cannot be read, its reference."""
    try:
        return image.sha256()
    except ImageFault:
        return image.source
