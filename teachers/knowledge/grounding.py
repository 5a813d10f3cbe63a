"""Where an answer's values stand: in the text (with offsets), in the text of its pictures, or nowhere (inferred).

Only what ought to stand in the source is looked for: the mentions of `ner`, of triples and of detected links, and the
attributes whose values are copied (verbatim, numbers, dates). A relation, a choice out of a closed list and a ranked
entity are conclusions; there is nothing to look for.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, get_args

from ...prompts.align import Aligner
from ...tasks.task import DataFault, Task

#: From the strongest to the weakest.
Where = Literal["text", "picture_text", "inferred"]

#: The words that stand in an example's pictures, as one text.
PictureText = Callable[[Any], str]


@dataclass(frozen=True)
class Found:
    """A value and where it stands: characters ``start`` to ``end`` of the text (or of the pictures' text)."""

    value: str
    where: Where
    start: int | None = None
    end: int | None = None


def ocr_in_context(example: Any) -> str:
    """The picture's text as an example's context holds it, under ``ocr``."""
    return str(example.context.get("ocr", ""))


def evidence(
    task: Task, example: Any, schema: Any, answer: Any, picture_text: PictureText = ocr_in_context
) -> tuple[Found, ...]:
    """Each value that ought to stand in the source, in the answer's order, and where it does.

    ``picture_text`` is called only if a value is not in the text.
    """
    if task.key not in _VALUES:
        raise DataFault(
            task.key, "its answers cannot be grounded yet", "teach teachers/knowledge/grounding.py its values"
        )
    sources = _Sources(example, picture_text)
    return tuple(sources.find(*value) for value in _VALUES[task.key](example, schema, answer))


def grounded(found: Sequence[Found]) -> Where | None:
    """How well the worst of them is grounded; None where there is nothing to look for."""
    order = get_args(Where)
    return max((f.where for f in found), key=order.index, default=None)


def as_json(found: Sequence[Found]) -> str | None:
    """For the column ``evidence``; None where there is nothing to look for."""
    return json.dumps([asdict(f) for f in found], ensure_ascii=False) if found else None


class _Sources:
    """An example's text and, once something is not in it, its pictures' text."""

    def __init__(self, example: Any, picture_text: PictureText) -> None:
        self._text, self._read = Aligner(example.text), lambda: picture_text(example)

    @cached_property
    def _picture_text(self) -> Aligner:
        return Aligner(self._read())

    def find(self, value: str, start: int | None = None, end: int | None = None) -> Found:
        """A value's place; the parser has found that of a mention already, or has not."""
        if start is not None:
            return Found(value, "text", start, end)
        if place := self._text.holds(value):
            return Found(value, "text", *place)
        if place := self._picture_text.holds(value):
            return Found(value, "picture_text", *place)
        return Found(value, "inferred")


#: A value, and its place in the text where the parser has found it.
Value = tuple[str, int | None, int | None]


def _of_mentions(mentions: Sequence[Any]) -> Iterator[Value]:
    return ((m.text, m.start, m.end) for m in mentions)


def _of_attributes(example: Any, schema: Any, answer: Any) -> Iterator[Value]:
    for name, values in answer.values.items():
        if schema.attribute(name, example.category).copied:
            yield from ((value, None, None) for value in values)


_VALUES: dict[str, Callable[[Any, Any, Any], Iterator[Value]]] = {
    "ner": lambda example, schema, answer: _of_mentions(answer.entities),
    "attributes": _of_attributes,
    "relations": lambda example, schema, answer: _of_mentions([m for t in answer.triples for m in (t.head, t.tail)]),
    "completion": lambda example, schema, answer: iter(()),
    "alignment": lambda example, schema, answer: iter(()),
    "linking": lambda example, schema, answer: _of_mentions([link.mention for link in answer.links]),
}
