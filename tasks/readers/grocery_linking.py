"""Grocery linking: a photo taken in a shop and a coarse name ("Milk"), linked to one of 81 products."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from ..dataset import Dataset
from ..graph import Entity, KnowledgeGraph
from ..images import Image
from ..linking import Schema
from ..record import Record
from ..task import DataFault
from .mentions import add_mentions, linked
from .pairs import shuffled, unnamed
from .rows import Rows, json_rows, where


class _Photo(Record):
    id: str
    image: str
    mention: str
    answer: int
    source_path: str


class _Product(Record):
    id: int
    name: str
    coarse_id: int
    coarse_name: str
    group: str
    title: str | None
    description: str
    iconic_image: str


def recognise(folder: Path) -> str | None:
    """``grocery_linking`` if its products are there."""
    return "grocery_linking" if (folder / "entities.jsonl").is_file() and (folder / "test.jsonl").is_file() else None


def read(folder: Path, name: str) -> Dataset:
    """Read the photos and the products; the text is the mention alone, and ``val.jsonl`` is the split ``valid``.

    A photo's id, its file name and its place in the file tell the answer: photos are put into a drawn order, numbered
    in it, and carried without their names (see `pairs.unnamed`). A product has its coarse name and its title as
    aliases. Where one product alone has a coarse name, the mention decides; the notes count the others
    (``ambiguous.test``).
    """
    schema = Schema(knowledge_base="grocery products", guideline="Fruit, vegetables and cartons sold in a shop.")
    rows = Rows(name, "linking", schema, ("train", "valid", "test"))
    products = {product.id: product for _, product in json_rows(folder / "entities.jsonl", _Product, rows.faults)}
    bearers = Counter(product.coarse_name for product in products.values())
    for split, file in (("train", "train.jsonl"), ("valid", "val.jsonl"), ("test", "test.jsonl")):
        photos = {photo.id: (line, photo) for line, photo in json_rows(folder / file, _Photo, rows.faults)}
        for line, photo in map(photos.__getitem__, shuffled(photos, f"{name}.{split}")):
            place = where(folder / file, line)
            with rows.row(place):
                if photo.answer not in products:
                    raise DataFault(place, f"its answer {photo.answer} is no product")
                pictures = _picture(folder / photo.image, rows.notes)
                answer = products[photo.answer].name
                add_mentions(rows, split, place, photo.mention, [(photo.mention, answer)], pictures)
                rows.notes[f"ambiguous.{split}"] += bearers[photo.mention] > 1
    entities = []
    for product in products.values():
        icon = Path(os.path.abspath(folder / product.iconic_image))
        rows.notes["pictures_missing"] += not icon.is_file()
        entities.append(
            Entity(
                id=product.name,
                name=product.name.replace("-", " "),
                aliases=tuple(filter(None, (product.coarse_name, product.title))),
                description=product.description,
                attributes={"group": (product.group,)},
                images=(Image(source=str(icon)),) if icon.is_file() else (),
            )
        )
    return linked(rows, KnowledgeGraph(name, tuple(entities)))


def _picture(file: Path, notes: Counter[str]) -> tuple[Image, ...]:
    if not file.is_file():
        notes["pictures_missing"] += 1
        return ()
    return (unnamed(file),)
