"""Machine-reading questions made of a schema's guidelines, in several wordings: asked of teachers, learned by
students. What is asked about a task stands in its face.
"""

from __future__ import annotations

from typing import Any

from ..tasks.task import Task
from .faces import face

#: At least so many wordings a label, always in the same order.
WORDINGS = 3


def questions(task: str | Task, schema: Any, example: Any = None) -> dict[str, tuple[str, ...]]:
    """Questions by label (entity type, attribute, relation), `WORDINGS` of each, the fullest first.

    With an example, what is asked of it; without one, the whole schema. An attribute that stands several times
    with different meanings (one a category) is then asked by its name alone; pass
    ``Schema(attributes=schema.of(category))`` to ask for one category.

    Raises:
        KeyError: there is no such task.
    """
    return face(task).questions(schema, example)
