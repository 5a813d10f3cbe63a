"""Magister's own `generate`, to the ledger and the corpus. See ../generation.py."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise, starmap
from pathlib import Path
from typing import Any

from magister.tasks import TASKS, ner
from magister.teachers.engines.openai import OpenAITeacher
from magister.teachers.generation.generate import generate
from magister.teachers.teacher import Reply, Request

TYPES = {
    "PER": ("person", "Names of people, real or invented, alone or as a pair; not titles or jobs."),
    "LOC": ("location", "Names of places: countries, towns, rivers, streets, sights."),
    "ORG": ("organisation", "Names of companies, teams, bands, parties, public bodies."),
    "MISC": ("other name", "Names of events, works, products, awards, and of peoples and languages."),
}
SCHEMA = ner.Schema(types=tuple(ner.EntityType(name=n, title=t, guideline=g) for n, (t, g) in TYPES.items()))


class Timed:
    """A teacher, and when it was asked and done: (wall, processor) seconds."""

    def __init__(self, teacher: OpenAITeacher) -> None:
        self._teacher = teacher
        self.began = self.ended = (0.0, 0.0)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._teacher, name)

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        self.began = now()
        yield from self._teacher.generate(requests)
        self.ended = now()


def now() -> tuple[float, float]:
    return time.monotonic(), time.process_time()


def between(before: Sequence[float], after: Sequence[float]) -> list[float]:
    return [b - a for a, b in zip(before, after, strict=True)]


def main(data: str, url: str, folder: str, concurrency: str) -> None:
    rows = [json.loads(line) for line in Path(data).read_text().splitlines()]
    examples = [ner.Example(id=row["id"], text=row["text"]) for row in rows]
    teacher: Any = Timed(OpenAITeacher("stub", url, concurrency=int(concurrency)))
    started = now()
    summary = generate(TASKS["ner"], examples, SCHEMA, teacher, ["zero_shot"], Path(folder))
    ended = now()
    moments = (started, teacher.began, teacher.ended, ended)
    split = dict(zip(("render", "ask", "build"), starmap(between, pairwise(moments)), strict=True))
    seconds, cpu = between(started, ended)
    print(json.dumps({"rows": summary.kept, "seconds": seconds, "cpu": cpu, "split": split}))


if __name__ == "__main__":
    main(*sys.argv[1:5])
