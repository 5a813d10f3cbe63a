"""Machine-reading questions made of a schema's guidelines, in several wordings: asked of teachers, learned by
students.

Source: "Query Prior Matters: A MRC Framework for Multimodal Named Entity Recognition" (ACM MM 2022) and
MNER-QG (AAAI 2023): a question drawn from the annotation guideline does better than a keyword or the type's
name. Several wordings follow MUMRC (ICME 2023). The wordings here are ours.
"""

from __future__ import annotations

from typing import Any

from ..tasks.attributes import Attribute
from ..tasks.attributes import Schema as AttributesSchema
from ..tasks.ner import EntityType
from ..tasks.task import Task

#: At least so many wordings a label, always in the same order.
WORDINGS = 3


def questions(task: str | Task, schema: Any) -> dict[str, tuple[str, ...]]:
    """Questions per entity type or attribute, `WORDINGS` of each, the fullest first.

    An attribute that stands several times with different meanings (one a category) is asked by its name
    alone; pass ``Schema(attributes=schema.of(category))`` to ask for one category.
    """
    key = task if isinstance(task, str) else task.key
    if key == "ner":
        return {t.name: _of_type(t) for t in schema.types}
    if key == "attributes":
        return _of_attributes(schema)
    raise KeyError(f"no questions for the task {key!r}; there are some for: ner, attributes")


def _of_type(kind: EntityType) -> tuple[str, ...]:
    guideline = _sentence(kind.guideline)
    return (
        f'Which words in the text are names of the type "{kind.title}"? {guideline}',
        f"{guideline} Which mentions of this kind does the text contain?",
        f'Does the text name anything of the type "{kind.title}", and with which words?',
    )


def _of_attributes(schema: AttributesSchema) -> dict[str, tuple[str, ...]]:
    asked: dict[str, Attribute] = {}
    for attribute in schema.attributes:
        same = asked.get(attribute.name)
        if same is not None and _meaning(same) != _meaning(attribute):
            attribute = Attribute(name=attribute.name, type="free")
        asked[attribute.name] = attribute
    return {name: _of_attribute(a) for name, a in asked.items()}


def _meaning(attribute: Attribute) -> tuple[Any, ...]:
    return attribute.description, attribute.type, attribute.options


def _of_attribute(attribute: Attribute) -> tuple[str, ...]:
    name, meaning = attribute.name, _sentence(attribute.description)
    if attribute.type == "one_of":
        *most, last = attribute.options
        options = f"{', '.join(most)} or {last}" if most else last
        first = f"Which of these is the {name} of the product: {options}?"
    elif attribute.type == "verbatim":
        first = f"Which words in the product text state its {name}?"
    else:
        first = f"What is the {name} of the product?"
    return tuple(
        q.strip()
        for q in (
            f"{first} {meaning}",
            f"{meaning} What does the product have as its {name}?",
            f"Find the {name} of this product.",
        )
    )


def _sentence(text: str) -> str:
    """A guideline as a sentence: capital letter, full stop; empty stays empty."""
    text = " ".join(text.split())
    return text and text[0].upper() + text[1:] + ("" if text[-1] in ".!?" else ".")
