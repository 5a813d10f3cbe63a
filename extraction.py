"""Zero-shot attribute extraction with one face: a teacher asked through a template, or a distilled student."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from .tasks import TASKS
from .tasks.attributes import Attribute, Example, Schema
from .tasks.images import Image
from .tasks.record import Record

#: So many products are read ahead and asked together.
CHUNK = 64


class Product(Record):
    """One product: its text, and what else is known of it. ``images`` are paths or data URLs."""

    text: str
    id: str = ""
    category: str = ""
    images: tuple[str, ...] = ()


def extract(
    products: Iterable[Product | str],
    attributes: Sequence[str | Attribute] = (),
    *,
    teacher: Any | str | None = None,
    student: Any | str | Path | None = None,
    prompt: str = "zero_shot",
    demonstrations: Sequence[Example] = (),
) -> Iterator[dict[str, Any]]:
    """The attributes of each product, in the order given: ``{"id", "values": {name: value or None}, "fault"}``.

    Args:
        products: products or plain texts; may be a stream, read `CHUNK` at a time.
        attributes: names (any value, copied or written freely), or full `Attribute` objects with descriptions and
            options. A student may be asked what it was trained for by leaving them out.
        teacher: a `Teacher` or its spec (``demo``, ``hf:PATH``, ``openai:MODEL@URL``).
        student: a trained student or its run folder. Exactly one of teacher and student.
        prompt, demonstrations: the template asked, and worked examples for it; for a teacher only. A teacher that was
            never instructed (``demo``) needs ``few_shot`` with demonstrations; with the spec ``demo`` it gets those
            of the bundled sampler if none are given.

    Yields:
        A product that cannot be answered has ``values: None`` and its fault by name; the others go on.
    """
    if (teacher is None) == (student is None):
        raise ValueError("give one of teacher and student")
    asked = tuple(Attribute(name=a, type="free") if isinstance(a, str) else a for a in attributes)
    answer = _by_teacher(teacher, asked, prompt, demonstrations) if teacher is not None else _by_student(student, asked)
    numbered = ((str(n), p if isinstance(p, Product) else Product(text=p)) for n, p in enumerate(products))
    while chunk := list(islice(numbered, CHUNK)):
        yield from answer([_example(p, p.id or number, asked) for number, p in chunk])


def _example(product: Product, name: str, asked: Sequence[Attribute]) -> Example:
    images = tuple(Image(source=source, example=name) for source in product.images)
    names = tuple(a.name for a in asked)
    return Example(id=name, text=product.text, category=product.category, asked=names, images=images)


def _row(example: Example, answer: Any | None, fault: str = "", detail: str = "") -> dict[str, Any]:
    values = None
    if answer is not None:
        values = {name: _plain(answer.values.get(name, ())) for name in example.asked}
    return {"id": example.id, "values": values, "fault": f"{fault}: {detail}" if fault else None}


def _plain(values: Sequence[str]) -> str | list[str] | None:
    """Absent is null, one value is itself, several are a list."""
    return (list(values) if len(values) > 1 else values[0]) if values else None


def _by_teacher(teacher: Any, asked: Sequence[Attribute], prompt: str, demonstrations: Sequence[Example]) -> Any:
    from .teachers.ask import ask
    from .teachers.describe import Describer
    from .teachers.spec import teacher as of_spec

    if not asked:
        raise ValueError("name the attributes: a teacher has none of its own")
    schema = list(asked)
    if teacher == "demo" and not demonstrations:
        from .tasks.readers import jsonl

        prompt, sample = "few_shot", jsonl.read(Path(__file__).parent / "demo" / "products.jsonl")
        demonstrations = sample.split("train")
        schema += [a for a in sample.schema.attributes if a.name not in {s.name for s in schema}]
    engine = of_spec(teacher) if isinstance(teacher, str) else teacher
    describe = None if engine.sees_images else Describer().describe
    whole = Schema(attributes=tuple(schema))

    def answer(examples: list[Example]) -> Iterator[dict[str, Any]]:
        for said in ask(engine, TASKS["attributes"], examples, whole, prompt, demonstrations, describe=describe):
            yield _row(said.example, said.answer, said.fault, said.detail)

    return answer


def _by_student(student: Any, asked: Sequence[Attribute]) -> Any:
    if isinstance(student, str | Path):
        from .distill.evaluate import load

        student, _ = load(student)
    schema: Schema = student.schemas["attributes"]

    def answer(examples: list[Example]) -> Iterator[dict[str, Any]]:
        examples = [e if e.asked else _own(e, schema) for e in examples]
        for example, found in zip(examples, student.predict(examples), strict=True):
            yield _row(example, found)

    return answer


def _own(example: Example, schema: Schema) -> Example:
    """The example, asked whatever the student knows of its category."""
    names = dict.fromkeys(a.name for a in schema.of(example.category))
    return example.model_copy(update={"asked": tuple(names)})
