"""What a template is shown: plain frozen texts, never our own objects, gold only where the front matter asks
for it.

Records are pydantic models, and a pydantic model carries methods that read files and unpickle: in the hands
of a template they would be a hole in the sandbox. So a template sees copies made of texts, tuples and plain
namespaces.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ..tasks.images import Image
from .faces import face_of
from .plain import defuse, plain

__all__ = ["PICTURE_WORDS", "as_json", "claims", "defuse", "example_view", "is_itself", "plain"]

#: Names in an example's context that put its picture into words.
PICTURE_WORDS = ("caption", "tags", "colours", "ocr")


def example_view(example: Any, place: Callable[[Image], str], *, gold: bool) -> SimpleNamespace:
    """An example as a template sees it.

    Args:
        example: an example of any task.
        place: gives the mark that stands for a picture.
        gold: whether the gold answer is shown; if not, the view has no such name.
    """
    context = {defuse(k): defuse(v) for k, v in example.context.items() if v.strip()}
    view = SimpleNamespace(text=defuse(example.text), context=context, images=tuple(place(i) for i in example.images))
    vars(view).update(face_of(example).fields(example))
    if gold:
        view.gold = None if example.gold is None else plain(example.gold)
    return view


def is_itself(example: Any, other: Any) -> bool:
    """Whether ``other`` is the example, so that its answer would be given away.

    Two examples of one text are one. But where the text is only derived (a triple's, an entity's name) many
    examples share it, and the id alone decides.
    """
    texts = "text" in type(example).model_fields and example.text == other.text
    return bool(example.id == other.id or texts)


def as_json(answer: Any, example: Any = None, schema: Any = None) -> str:
    """An answer in the one-line JSON that a teacher is to give (of several gold alternatives, the first)."""
    return face_of(answer).as_json(answer, example, schema)


def claims(schema: Any, answer: Any, example: Any = None) -> tuple[str, ...]:
    """An answer as statements that can be judged one by one; at least one, also for an empty answer."""
    return face_of(answer).claims(schema, answer, example)
