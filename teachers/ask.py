"""Asking a teacher for answers to be used at once: extraction and evaluation, with no corpus left behind."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ..prompts.library import find
from ..prompts.parse import Fault, Parsed, parse
from ..tasks.task import Task
from .generation.plan import Describe, Sampling, plan
from .teacher import Reply, Teacher


@dataclass(frozen=True)
class Said:
    """What a teacher said of one example.

    Attributes:
        example: the example, as it was given.
        answer: the task's answer, or None.
        fault: why there is none: a closed word (``not_json``, ``image``, ``transport``, ...); empty if there is one.
        detail: what exactly, for a person.
        reply: the raw reply, or None where nothing could be asked.
    """

    example: Any
    answer: Any | None
    fault: str = ""
    detail: str = ""
    reply: Reply | None = None


def ask(
    teacher: Teacher,
    task: Task,
    examples: Sequence[Any],
    schema: Any,
    prompt: str = "zero_shot",
    demonstrations: Sequence[Any] = (),
    shots: int = 4,
    describe: Describe | None = None,
    chunk: int = 64,
) -> Iterator[Said]:
    """One `Said` an example, in the order given; a bad example is a fault and the others go on.

    Args:
        prompt: a template of the task that asks for the whole answer (``zero_shot``, ``few_shot``).
        demonstrations: examples with gold, out of which the ``shots`` most similar are shown.
        describe: puts pictures into words for a teacher that cannot see.
        chunk: so many examples are asked together.
    """
    template = find(prompt if "/" in prompt else f"{task.key}/{prompt}")
    for start in range(0, len(examples), chunk):
        part = examples[start : start + chunk]
        items, _ = plan(task, part, schema, teacher, [template], Sampling(), demonstrations, shots, describe)
        wanted = {item.request.key: item.request for item in items if item.request}
        replies = {reply.key: reply for reply in teacher.generate(list(wanted.values()))}
        for example, item in zip(part, items, strict=True):
            if item.request is None:
                yield Said(example, None, item.reason, str(item.fault))
            else:
                yield _said(example, item.example, replies.get(item.request.key), task, schema)


def _said(example: Any, seen: Any, reply: Reply | None, task: Task, schema: Any) -> Said:
    if reply is None:
        return Said(example, None, "no_reply", "the engine ended without a reply")
    if reply.failure is not None:
        return Said(example, None, reply.failure, reply.detail, reply)
    parsed: Parsed | Fault = parse(task, reply.text, seen, schema, reply.finish)
    if isinstance(parsed, Fault):
        return Said(example, None, parsed.name, parsed.detail, reply)
    return Said(example, parsed.answer, reply=reply)
