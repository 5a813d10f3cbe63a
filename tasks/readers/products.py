"""What the attribute sets share: annotated products, and the schema that they make."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ..attributes import Answer, Attribute, Schema, ValueType
from ..images import Image
from ..task import DataFault
from .rows import Rows

#: How many of the training split's most frequent values an attribute shows as examples.
EXAMPLES = 8
#: How the field's files say that a value is absent.
ABSENT = "n/a"


@dataclass(frozen=True)
class Product:
    """One annotated product: ``values`` has each attribute asked, an empty tuple where it is absent."""

    split: str
    place: str
    id: str
    text: str
    category: str
    values: dict[str, tuple[str, ...]]
    images: tuple[Image, ...] = ()
    context: dict[str, str] = field(default_factory=dict)


def alternatives(values: Iterable[str]) -> tuple[str, ...]:
    """The values a file gives for one attribute, trimmed, each once, without the mark of absence."""
    trimmed = (value.strip() for value in values)
    return tuple(dict.fromkeys(value for value in trimmed if value and value != ABSENT))


def schema_of(
    products: Sequence[Product],
    kind: ValueType | Mapping[str, ValueType],
    describe: Callable[[str, str], str],
) -> Schema:
    """One attribute for each category and name that the products ask, with frequent values of ``train``.

    Args:
        products: those of every split; values outside ``train`` are not looked at.
        kind: the values' type, one for all or by attribute name.
        describe: ``(attribute, category) -> description``.
    """
    train: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for product in products:
        for name, values in product.values.items():
            train[product.category, name].update(values if product.split == "train" else ())
    return Schema(
        attributes=tuple(
            Attribute(
                name=name,
                description=describe(name, category),
                type=kind if isinstance(kind, str) else kind[name],
                examples=tuple(value for value, _ in seen.most_common(EXAMPLES)),
                categories=(category,) if category else (),
            )
            for (category, name), seen in train.items()
        )
    )


def gather(
    name: str, products: Sequence[Product], schema: Schema, splits: Iterable[str], faults: Iterable[DataFault]
) -> Rows:
    """Products and earlier faults as rows; ``value_not_in_text.<split>`` counts verbatim values it lacks."""
    rows = Rows(name, "attributes", schema, splits)
    rows.faults += faults
    for product in products:
        with rows.row(product.place):
            rows.add(
                product.split,
                product.place,
                id=product.id,
                text=product.text,
                category=product.category,
                asked=tuple(product.values),
                images=product.images,
                context=product.context,
                gold=Answer(values=product.values),
            )
            for attribute, values in product.values.items():
                if schema.attribute(attribute, product.category).type == "verbatim":
                    missing = sum(value not in product.text for value in values)
                    rows.notes[f"value_not_in_text.{product.split}"] += missing
    return rows
