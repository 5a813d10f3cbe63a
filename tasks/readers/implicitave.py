"""ImplicitAVE: products with a picture and the value of one attribute, chosen out of a closed list."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..attributes import Answer, Attribute, Schema
from ..dataset import Dataset
from ..images import Image
from ..task import DataFault
from .rows import Rows, json_file, numbered_lines, where

CLOTHES = "options_Clothing_Shoes_and_Jewelry.json"
#: The file of options that serves a domain (the third spelt so by the source).
OPTIONS = {
    "Clothing": CLOTHES,
    "Footwear": CLOTHES,
    "Jewlery_and_General_Apparel": CLOTHES,
    "Food": "options_Food.json",
    "Home": "options_Home.json",
}
COLUMNS = ("id", "images", "category", "texts", "attribute_names", "attribute_values")


class Row(NamedTuple):
    """A line of a table with the split and domain it belongs to."""

    split: str
    place: str
    domain: str
    id: str
    image: str
    category: str
    text: str
    attribute: str
    value: str


def recognise(folder: Path) -> str | None:
    """``implicitave`` if its tables and its options are there."""
    is_here = (folder / "image_text" / "train.tsv").is_file() and (folder / CLOTHES).is_file()
    return "implicitave" if is_here else None


def read(folder: Path, name: str) -> Dataset:
    """Read the human-checked rows with pictures, and the noisier ``text_only_train`` and ``text_only_valid``.

    Each example asks its one attribute. A value that is none of the options is a fault: it cannot be chosen.
    """
    options = {file: _options(folder / file) for file in dict.fromkeys(OPTIONS.values())}
    faults: list[DataFault] = []
    table = list(_tables(folder, faults))
    rows = Rows(name, "attributes", _schema(table, options), splits=("train", "valid", "test"))
    rows.faults += faults
    for row in table:
        with rows.row(row.place):
            picture = folder / "images" / row.image
            pictured = not row.split.startswith("text_only")
            rows.add(
                row.split,
                row.place,
                id=row.id,
                text=row.text,
                category=row.category,
                asked=(row.attribute,),
                images=(Image(source=str(picture), example=row.id),) if pictured else (),
                gold=Answer(values={row.attribute: (row.value,)}),
            )
    return rows.dataset()


def _options(path: Path) -> dict[str, list[str]]:
    if not path.is_file():
        raise DataFault(str(path), "there is no such file", "the options of each attribute are needed")
    options: dict[str, list[str]] = json_file(path)
    return options


def _schema(table: list[Row], options: dict[str, dict[str, list[str]]]) -> Schema:
    """An attribute for each list of options, with the categories it is asked of.

    One category is asked the same attribute in two domains (Material of jewelry holders): it has both lists.
    """
    allowed: dict[tuple[str, str], dict[str, None]] = defaultdict(dict)
    for row in table:
        listed = options[OPTIONS[row.domain]].get(row.attribute, [])
        allowed[row.attribute, row.category].update(dict.fromkeys(listed))
    categories: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for (attribute, category), values in allowed.items():
        if values:
            categories[attribute, tuple(values)].append(category)
    return Schema(
        attributes=tuple(
            Attribute(
                name=attribute,
                description=f"{attribute} of the product, as its picture shows it or its title implies it.",
                type="one_of",
                options=values,
                categories=tuple(sorted(where_asked)),
            )
            for (attribute, values), where_asked in categories.items()
        )
    )


def _tables(folder: Path, faults: list[DataFault]) -> Iterator[Row]:
    for split in ("train", "valid", "test"):
        path = folder / "image_text" / f"{split}.tsv"
        if path.is_file():
            yield from _table(path, split, "", faults)
    for part, split in (("train", "text_only_train"), ("val", "text_only_valid")):
        for domain in OPTIONS:
            path = folder / "text_only" / f"{domain}_{part}.tsv.gz"
            if path.is_file():
                yield from _table(path, split, domain, faults)


def _table(path: Path, split: str, domain: str, faults: list[DataFault]) -> Iterator[Row]:
    """The rows of a table; ``domain`` is that of the whole file, or empty where a column gives it."""
    lines = numbered_lines(path)
    _, first = next(lines, (1, ""))
    header = tuple(first.split("\t"))
    if header != (COLUMNS if domain else ("domain", *COLUMNS)):
        raise DataFault(where(path, 1), f"unknown columns: {', '.join(header)}", f"not: {', '.join(COLUMNS)}")
    for number, line in lines:
        place = where(path, number)
        try:
            # Line by line: a quote left open must not swallow the rows after it.
            cells = next(csv.reader([line], delimiter="\t", strict=True), [])
        except csv.Error as error:
            faults.append(DataFault(place, f"broken quoting: {error}"))
            continue
        if not cells:
            continue
        own_domain = domain or cells[0]
        if len(cells) != len(header):
            faults.append(DataFault(place, f"{len(cells)} columns where the header has {len(header)}"))
        elif own_domain not in OPTIONS:
            faults.append(DataFault(place, f"unknown domain {own_domain!r}", f"there are: {', '.join(OPTIONS)}"))
        else:
            id_, image, category, text, attribute, value = cells[-len(COLUMNS) :]
            text = text.removeprefix("[Title]").strip()
            yield Row(split, place, own_domain, id_, image, category, text, attribute, value)
