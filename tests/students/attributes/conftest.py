"""Products whose values stand in their titles, and a short training, for the published attribute systems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from magister import students
from magister.tasks.attributes import Answer, Attribute, Example, Schema


@pytest.fixture(scope="session")
def title_schema() -> Schema:
    """Attributes whose values are copied from a title."""
    return Schema(
        attributes=(
            Attribute(name="size", examples=("M", "42cm"), categories=("shirt",)),
            Attribute(name="colour", examples=("red", "green"), categories=("shirt",)),
            Attribute(name="wash", categories=("shirt",)),
        )
    )


@pytest.fixture(scope="session")
def titles() -> list[Example]:
    """Three products of unlike lengths; some values are absent, one has two sub-tokens and one stands twice."""

    def product(id: str, text: str, **gold: tuple[str, ...]) -> Example:
        context = {"knowledge": f"{text} is a shirt of the type {id}"}
        answer = Answer(values=dict(gold))
        return Example(id=id, text=text, asked=tuple(gold), gold=answer, category="shirt", context=context)

    return [
        product("p", "Blue cotton shirt size M", size=("M",), colour=("Blue",), wash=()),
        product("q", "Red shirt, 42cm , machine wash , in Red", size=("42cm",), colour=("Red",), wash=("machine",)),
        product("r", "green shirt", colour=("green",), size=()),
    ]


@pytest.fixture
def kept(tmp_path: Path) -> Callable[[Any, Sequence[Any]], Any]:
    """``kept(student, examples)`` saves it and gives the one that is loaded, which answers the same, as surely."""

    def run(student: Any, examples: Sequence[Any]) -> Any:
        student.save_pretrained(tmp_path)
        again = students.load(tmp_path)
        assert type(again) is type(student)
        for (answer, sure), (other, other_sure) in zip(
            student.predict(examples, return_scores=True), again.predict(examples, return_scores=True), strict=True
        ):
            assert answer == other
            assert sure == pytest.approx(other_sure, abs=1e-5)
        return again

    return run
