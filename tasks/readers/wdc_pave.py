"""WDC-PAVE: product offers (title and description) from web shops, with values as written or normalised."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from ..dataset import Dataset
from ..record import Record
from ..task import DataFault
from .products import Product, alternatives, gather, schema_of
from .rows import json_rows, where

FILES = {"wdc_pave": "final_target_scores.jsonl", "wdc_pave_normalised": "normalized_target_scores.jsonl"}


class Row(Record):
    """A line of either file; ``target_scores`` gives each attribute its values (``n/a`` for none)."""

    id: int
    cluster_id: float
    category: str
    input_title: str
    input_description: str
    target_scores: dict[str, dict[str, Any]]
    url: str = ""


def recognise(folder: Path) -> str | None:
    """``wdc_pave`` if its file of values as written is there."""
    return "wdc_pave" if (folder / FILES["wdc_pave"]).is_file() else None


def split_of(cluster_id: float) -> str:
    """Ours, since there is no official split: 70 % train, 10 % valid, 20 % test, by a hash of the cluster.

    Offers of one cluster are the same product and stay together; both kinds of values give the same split.
    """
    digest = hashlib.sha256(str(int(cluster_id)).encode()).digest()
    bucket = int.from_bytes(digest[:4], "big") % 10
    return "train" if bucket < 7 else "valid" if bucket == 7 else "test"


def read(folder: Path, name: str) -> Dataset:
    """Read the offers; an example's text is the title, a line break, the description."""
    path = folder / FILES[name]
    products: list[Product] = []
    faults: list[DataFault] = []
    for number, row in json_rows(path, Row, faults):
        text = f"{row.input_title.strip()}\n{row.input_description.strip()}".strip()
        values = {attribute: alternatives(given) for attribute, given in row.target_scores.items()}
        split = split_of(row.cluster_id)
        products.append(Product(split, where(path, number), str(row.id), text, row.category, values))
    if name == "wdc_pave_normalised":
        schema = schema_of(products, "free", _describe_normalised)
    else:
        schema = schema_of(products, "verbatim", _describe)
    return gather(name, products, schema, ("train", "valid", "test"), faults).dataset()


def _describe(attribute: str, category: str) -> str:
    return f"{attribute} of the product (category: {category}), copied from the offer's title or description."


def _describe_normalised(attribute: str, category: str) -> str:
    return f"{attribute} of the product (category: {category}), rewritten in the shop's standard form."
