"""A teacher for the tests: answers out of a function, and counts its calls in a file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from magister.tasks import ner
from magister.teachers.teacher import Reply, Request, Usage

SCHEMA = ner.Schema(
    types=(
        ner.EntityType(name="PER", title="person", guideline="People by name."),
        ner.EntityType(name="LOC", title="location", guideline="Places by name."),
    )
)


def example(number: int, text: str = "", **fields: Any) -> ner.Example:
    """``Ann3 sees Rome``, with its two entities as gold."""
    text = text or f"Ann{number} sees Rome"
    name = f"Ann{number}"
    gold = [ner.Entity(text=name, type="PER", start=0, end=len(name))] if text.startswith(name) else []
    if "Rome" in text:
        at = text.index("Rome")
        gold.append(ner.Entity(text="Rome", type="LOC", start=at, end=at + 4))
    return ner.Example(id=f"e{number}", text=text, gold=ner.Answer(entities=tuple(gold)), **fields)


def right(request: Request) -> str:
    """The gold answer of `example`."""
    name = f"Ann{request.example[1:]}"
    return f'{{"entities": [{{"text": "{name}", "type": "PER"}}, {{"text": "Rome", "type": "LOC"}}]}}'


class FakeTeacher:
    """Answers with ``says(request)``: a text, or a whole `Reply`."""

    spec = "fake"

    def __init__(
        self,
        says: Callable[[Request], str | Reply] = right,
        sees_images: bool = True,
        name: str = "fake",
        calls: Path | None = None,
    ) -> None:
        self.says, self.sees_images, self.name, self.calls = says, sees_images, name, calls
        self.asked: list[Request] = []

    def identity(self) -> dict[str, Any]:
        return {"model": self.name}

    def generate(self, requests: Iterable[Request]) -> Iterator[Reply]:
        for request in requests:
            self.asked.append(request)
            if self.calls is not None:
                with open(self.calls, "a") as file:
                    file.write(request.key + "\n")
                    file.flush()
                    os.fsync(file.fileno())
            said = self.says(request)
            if isinstance(said, str):
                said = Reply(key=request.key, text=said, usage=Usage(prompt_tokens=10, completion_tokens=5))
            yield said

    def close(self) -> None:
        pass
