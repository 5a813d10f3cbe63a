"""A closed vocabulary of attribute values: what can be answered at all, and how often training said it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from ...tasks.attributes import Answer, Attribute, Example, Schema, attribute_of
from ...tasks.task import DataFault

#: How "absent" stands among the values.
ABSENT = ""

#: Whose training values an attribute without a closed list can have: its own in the product's category (in any, where
#: that category had none), or its own in every category.
Candidates = Literal["category", "attribute"]


class ValueVocabulary:
    """The options of every closed attribute and the training values of every other one.

    "Absent" is a value of an attribute where its training gold has it.

    Args:
        schema: the attributes.
        known: what `learn` gave.
        candidates: which of the training values an attribute can have.

    Attributes:
        values: all values, each once, whichever attributes have it.
        counts: how often the training gold has each of them.
        numbers: each value's number.
    """

    def __init__(self, schema: Schema, known: Mapping[str, Any], candidates: Candidates = "category") -> None:
        self.schema, self._by_category = schema, candidates == "category"
        self._seen: Mapping[str, Mapping[str, Sequence[str]]] = known["seen"]
        self.values = tuple(known["counts"])
        self.counts = tuple(known["counts"].values())
        self.numbers = {value: number for number, value in enumerate(self.values)}
        self._everywhere: dict[str, dict[str, None]] = defaultdict(dict)
        for by_name in self._seen.values():
            for name, values in by_name.items():
                self._everywhere[name].update(dict.fromkeys(values))
        self._found: dict[tuple[str, str], tuple[int, ...]] = {}

    @staticmethod
    def learn(schema: Schema, examples: Iterable[Example]) -> dict[str, Any]:
        """The vocabulary of some training examples as plain JSON: how often each value occurs, and which values each
        category's attributes have."""
        counts: Counter[str] = Counter({option: 0 for a in schema.attributes for option in a.choices})
        seen: dict[str, dict[str, dict[str, None]]] = defaultdict(lambda: defaultdict(dict))
        for example in examples:
            for name, values in example.gold.values.items() if example.gold else ():
                attribute = attribute_of(schema, example, name)
                own = [written(attribute, value, example) for value in values] or [ABSENT]
                counts.update(own)
                seen[example.category][name].update(dict.fromkeys(own))
        return {"counts": dict(counts), "seen": {c: {n: list(v) for n, v in by.items()} for c, by in seen.items()}}

    def candidates(self, example: Example, name: str) -> tuple[int, ...]:
        """Numbers of the values that an attribute of a product can have; empty where nothing is known of it."""
        key = (example.category, name)
        if key not in self._found:
            attribute = attribute_of(self.schema, example, name)
            seen = self._seen.get(example.category, {}).get(name, ()) if self._by_category else ()
            seen = seen or tuple(self._everywhere.get(name, ()))
            if attribute.choices:
                seen = (*attribute.choices, *(value for value in seen if value == ABSENT))
            self._found[key] = tuple(self.numbers[value] for value in seen)
        return self._found[key]

    def gold(self, example: Example, name: str) -> tuple[int, ...]:
        """Numbers of the gold alternatives that the vocabulary has."""
        attribute = attribute_of(self.schema, example, name)
        values = (example.gold or Answer()).values[name]
        own = [written(attribute, value, example) for value in values] or [ABSENT]
        return tuple(self.numbers[value] for value in own if value in self.numbers)


def written(attribute: Attribute, value: str, example: Example) -> str:
    """A gold value as the attribute's closed list writes it (casing aside); a `DataFault` if it is none of them."""
    if not attribute.choices:
        return value
    for option in attribute.choices:
        if option.lower() == value.lower():
            return option
    raise DataFault(
        f"example {example.id}",
        f"{attribute.name}: {value!r} is not among its options",
        f"there are: {', '.join(attribute.choices)}",
    )
