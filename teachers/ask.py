"""Asking a teacher for answers to be used at once: extraction and evaluation, with no corpus left behind.

With a ledger every reply is kept, and what is kept is not asked again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..prompts.library import find
from ..prompts.parse import Fault, Parsed, parse
from ..tasks.task import Task
from .generation.budget import Budget, Meter
from .generation.collect import collect
from .generation.plan import Describe, Item, Pick, Sampling, plan, refuse_hopeless
from .ledger.ledger import Ledger
from .ledger.row import Row
from .teacher import Reply, Request, Teacher, failed


@dataclass(frozen=True)
class Said:
    """What a teacher said of one example.

    Attributes:
        example: the example, as it was given.
        answer: the task's answer, or None.
        fault: why there is none: a closed word (``not_json``, ``image``, ``transport``, ...); empty if there is one.
        detail: what exactly, for a person.
        reply: the raw reply, or the ledger's row of it; None where nothing could be asked.
        seen: the example as the teacher was shown it: if it cannot see, with its pictures' words in the context.
    """

    example: Any
    answer: Any | None
    fault: str = ""
    detail: str = ""
    reply: Reply | Row | None = None
    seen: Any = None


def ask(
    teacher: Teacher,
    task: Task,
    examples: Sequence[Any],
    schema: Any,
    prompt: str = "zero_shot",
    demonstrations: Sequence[Any] | Pick = (),
    shots: int = 4,
    describe: Describe | None = None,
    chunk: int = 64,
    ledger: Ledger | None = None,
    retry_failed: bool = False,
    refuse: bool = True,
    logprobs: bool = False,
) -> Iterator[Said]:
    """One `Said` an example, in the order given; a bad example is a fault and the others go on.

    Args:
        prompt: a template of the task that asks for the whole answer (``zero_shot``, ``few_shot``).
        demonstrations: examples with gold, out of which the ``shots`` most similar are shown; or what picks all of
            them for an example (`extraction.demonstrations.Nearest`).
        describe: puts pictures into words for a teacher that cannot see.
        chunk: so many examples are asked together.
        ledger: keeps every reply before it counts, and answers what it holds; failures too, unless ``retry_failed``.
        refuse: whether a template that fails for every example of a chunk, not for its picture, is a `DataFault`.
        logprobs: whether the replies are to hold their tokens with log-probabilities.
    """
    template = find(prompt if "/" in prompt else f"{task.key}/{prompt}")
    drawn = Sampling(logprobs=logprobs)
    for start in range(0, len(examples), chunk):
        part = examples[start : start + chunk]
        items, _ = plan(task, part, schema, teacher, [template], drawn, demonstrations, shots, describe, refuse=False)
        if refuse:
            refuse_hopeless([item for item in items if item.fault is None or item.reason != "image"])
        wanted = {item.request.key: item.request for item in items if item.request}
        replies = _replies(teacher, wanted, ledger, retry_failed)
        for example, item in zip(part, items, strict=True):
            if item.request is None:
                yield Said(example, None, item.reason, str(item.fault), seen=item.example)
            else:
                yield _said(example, item, replies.get(item.request.key), task, schema)


def _replies(
    teacher: Teacher, wanted: Mapping[str, Request], ledger: Ledger | None, retry_failed: bool
) -> Mapping[str, Reply | Row]:
    """Replies by key; those that the ledger holds are not asked for."""
    if ledger is None:
        return {reply.key: reply for reply in teacher.generate(list(wanted.values()))}
    waiting = {key: request for key, request in wanted.items() if not ledger.settled(request, retry_failed)}
    left: Mapping[str, str] = {}
    if waiting:
        left = collect(ledger, teacher, waiting, len(wanted), Meter(Budget(), teacher)).left
    replies: dict[str, Reply | Row] = {key: row for key in wanted if (row := ledger.row(key)) is not None}
    for key, reason in left.items():
        if reason == "pending":
            replies[key] = failed(
                wanted[key], "pending", getattr(teacher, "advice", "") or "the reply is still to come"
            )
    return replies


def _said(example: Any, item: Item, reply: Reply | Row | None, task: Task, schema: Any) -> Said:
    seen = item.example
    if reply is None:
        return Said(example, None, "no_reply", "the engine ended without a reply", seen=seen)
    if reply.failure is not None:
        return Said(example, None, reply.failure, reply.detail, reply, seen)
    parsed: Parsed | Fault = parse(task, reply.text, seen, schema, reply.finish)
    if isinstance(parsed, Fault):
        return Said(example, None, parsed.name, parsed.detail, reply, seen)
    return Said(example, parsed.answer, reply=reply, seen=seen)
