"""AE-110K subset and OA-Mine: product titles with attribute values, as JSON lines (the ExtractGPT format)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pydantic import ValidationError

from ..dataset import Dataset
from ..record import Record
from ..task import DataFault
from .products import ABSENT, Product, alternatives, gather, schema_of
from .rows import json_rows, numbered_lines, where

SPLITS = ("train", "valid", "test")
#: The categories of OA-Mine; the AE-110K subset shares none of them.
OA_MINE = {
    "Breakfast Cereal",
    "Coffee",
    "Conditioner",
    "Laundry Detergent",
    "Safety Mask",
    "Shoes",
    "Sunscreen",
    "Tea",
    "Toothbrush",
    "Vitamin",
}


class Row(Record):
    """A line of the file: title, category, and for each attribute its values (``n/a`` for none)."""

    input: str
    category: str
    target_scores: dict[str, dict[str, int]]


def recognise(folder: Path) -> str | None:
    """``oamine`` or ``ae110k`` if the first training line has this format, told apart by its category."""
    train = folder / "train.jsonl"
    if not train.is_file():
        return None
    _, first = next(numbered_lines(train), (0, ""))
    try:
        return "oamine" if Row.model_validate_json(first).category in OA_MINE else "ae110k"
    except ValidationError:
        return None


def read(folder: Path, name: str) -> Dataset:
    """Read the titles; ids are ``<split>-<line>``, as the files have none. The sets have no ``valid`` split.

    The values of an attribute are alternatives. ``absent_and_value.<split>`` counts attributes whose gold
    says both ``n/a`` and a value: the value is kept.
    """
    present = [split for split in SPLITS if (folder / f"{split}.jsonl").is_file()]
    if not present:
        raise DataFault(str(folder), "no train.jsonl or test.jsonl", "name the data set's own folder")
    products: list[Product] = []
    faults: list[DataFault] = []
    both: Counter[str] = Counter()
    for split in present:
        path = folder / f"{split}.jsonl"
        for number, row in json_rows(path, Row, faults):
            values = {attribute: alternatives(given) for attribute, given in row.target_scores.items()}
            both[f"absent_and_value.{split}"] += sum(ABSENT in g and len(g) > 1 for g in row.target_scores.values())
            product = Product(split, where(path, number), f"{split}-{number}", row.input.strip(), row.category, values)
            products.append(product)
    rows = gather(name, products, schema_of(products, "verbatim", _describe), present, faults)
    rows.notes += both
    return rows.dataset()


def _describe(attribute: str, category: str) -> str:
    return f"{attribute} of the product (category: {category}), copied from its title."
