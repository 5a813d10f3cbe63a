"""The image-necessity probe: what is asked again without the picture, and what that changes.

An answer that stays the same without the picture did not need it. For a teacher that cannot see, the picture is its
words in the context, and they are taken away as well.
"""

from __future__ import annotations

from typing import Any

from ...prompts.view import PICTURE_WORDS
from ...tasks.graph import Entity
from ...tasks.task import Task
from .verify import Known, Verdict, agreement, same

#: The columns that `columns` fills.
COLUMNS = ("agreement_without_image", "image_delta", "answer_changed")


def without_image(example: Any) -> Any | None:
    """The example without its pictures and their words, its candidates' pictures included; None if it has none."""
    bare = {name: text for name, text in example.context.items() if name not in PICTURE_WORDS}
    blind = without_pictures(example).model_copy(update={"context": bare})
    return None if blind == example else blind


def without_pictures(example: Any) -> Any:
    """The example without its pictures, its candidates' included; the words of its context stay."""
    changes: dict[str, Any] = {}
    for name in type(example).model_fields:
        value = getattr(example, name)
        if name == "images":
            changes[name] = ()
        elif isinstance(value, Entity):
            changes[name] = value.model_copy(update={"images": ()})
    return without_candidate_pictures(example.model_copy(update=changes))


def without_candidate_pictures(example: Any) -> Any:
    """The example with its own pictures, and without those of its candidates."""
    if not getattr(example, "candidates", ()):
        return example
    bare = tuple(entity.model_copy(update={"images": ()}) for entity in example.candidates)
    return example.model_copy(update={"candidates": bare})


def columns(task: Task, example: Any, seen: Verdict, blind: Verdict, known: Known | None = None) -> dict[str, Any]:
    """The probe's columns of one answer, given with the picture and again without it.

    ``agreement_without_image``: agreement with gold of the answer given without the picture, null where it has none.
    ``image_delta``: the agreement with the picture less that, null unless both have one. ``answer_changed``: whether
    the two say something else (see `verify.votes`), null unless both could be parsed. ``known``: see `agreement`.
    """
    before = agreement(task, example, seen.answer, known) if seen.answer else None
    after = agreement(task, example, blind.answer, known) if blind.answer else None
    parsed = seen.answer is not None and blind.answer is not None
    return {
        "agreement_without_image": after,
        "image_delta": None if before is None or after is None else before - after,
        "answer_changed": not same(seen.answer, blind.answer) if parsed else None,
    }
