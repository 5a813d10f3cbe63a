"""From names to a corpus: what `magister generate` does with a data set, a teacher's spec and template names."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..prompts.library import find
from ..tasks import TASKS, readers
from ..tasks.task import DataFault
from . import spec
from .describe import Describer
from .generate import Summary, generate
from .plan import Describe
from .run_folder import DESCRIPTIONS
from .teacher import Reply

#: Seconds between two lines of progress where there is no terminal.
EVERY = 10.0


def corpus_from(
    task: str,
    data: str,
    teacher: str,
    prompts: Sequence[str],
    out: Path,
    *,
    split: str = "train",
    describe: Describe | None = None,
    say: Callable[[str], None] = print,
    **options: Any,
) -> Summary:
    """Read the data, make the teacher, ask, verify, write the corpus; ``options`` go to `generate`.

    ``split`` may name several with commas between (knowledge is needed of every split). Demonstrations, where a
    template shows some, come out of the training split. ``describe`` puts pictures into words for a teacher that
    cannot see, in place of a describer that keeps them in ``out``.
    """
    dataset = readers.read(data)
    if dataset.task != task:
        raise DataFault(data, f"is data for {dataset.task}, not for {task}")
    for fault in dataset.faults:
        say(f"refused: {fault}")
    names = [name if "/" in name else f"{task}/{name}" for name in prompts]
    demonstrations: Sequence[Any] = ()
    if any("demonstrations" in find(name).takes for name in names):
        demonstrations = dataset.split("train")
    engine = spec.teacher(teacher)
    if not engine.sees_images:
        describe = describe or Describer(out / DESCRIPTIONS).describe
    try:
        return generate(
            TASKS[task],
            [example for name in split.split(",") for example in dataset.split(name)],
            dataset.schema,
            engine,
            names,
            out,
            demonstrations=demonstrations,
            describe=describe,
            progress=progress(say),
            command=shlex.join(["magister", *sys.argv[1:]]),
            **options,
        )
    finally:
        engine.close()


def progress(say: Callable[[str], None]) -> Callable[[int, int, Reply], None]:
    """A line of progress every few seconds: how far, and how fast tokens come."""
    started = last = time.monotonic()
    tokens = 0

    def line(done: int, total: int, reply: Reply) -> None:
        nonlocal last, tokens
        tokens += reply.usage.completion_tokens
        now = time.monotonic()
        if now - last >= EVERY or done == total:
            last = now
            say(f"{done:,} of {total:,} answers, {tokens / max(now - started, 1e-9):.0f} tokens/s")

    return line
