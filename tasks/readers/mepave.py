"""MEPAVE (M-JAVE): Chinese product sentences with attribute values marked inline."""

from __future__ import annotations

import re
from pathlib import Path

from ..attributes import Answer, Attribute, Schema
from ..dataset import Dataset
from ..task import DataFault
from .rows import Rows, numbered_lines, where

#: What the attributes of the clothing part mean.
GLOSSES = {
    "图案": "pattern or print on the fabric",
    "材质": "material it is made of",
    "风格": "style or overall look",
    "颜色": "colour",
    "领型": "collar or neckline",
    "版型": "fit or cut",
    "闭合方式": "how it closes",
    "工艺": "craft or finishing technique",
    "袖长": "sleeve length",
    "适用季节": "season it is for",
    "鞋帮高度": "height of the shoe's upper",
    "裤型": "cut of the trousers",
    "腰型": "waist type",
    "袖型": "sleeve type",
    "鞋头款式": "toe style of the shoe",
    "裤长": "length of the trousers",
    "鞋跟高度": "heel height",
    "厚度": "thickness",
    "靴筒高度": "shaft height of the boot",
    "口袋类型": "type of pocket",
    "开口深度": "depth of the shoe's opening",
    "裙长": "length of the skirt or dress",
    "弹性": "stretch",
    "形状": "shape",
    "下摆类型": "type of hem",
    "开衩类型": "type of slit",
}
_MARKED = re.compile(r"<([^<>/]+)>([^<>]+)</\1>")


def recognise(folder: Path) -> str | None:
    """``mepave`` if its list of attributes and its training file are there."""
    return "mepave" if (folder / "vocab.label").is_file() and _file(folder, "train").is_file() else None


def read(folder: Path, name: str) -> Dataset:
    """Read the sentences; every one is asked all attributes, and those without a mark are absent.

    Several values of one attribute all hold (``several_values.<split>`` counts these attributes); as gold
    they are alternatives, like everywhere. The id is the sentence's; the product's is not kept.
    """
    names = _attributes(folder / "vocab.label")
    schema = Schema(
        attributes=tuple(
            Attribute(
                name=n,
                description=f"{n}: {GLOSSES.get(n, n)}, copied from the sentence",
            )
            for n in names
        )
    )
    rows = Rows(name, "attributes", schema)
    for split in ("train", "valid", "test"):
        path = _file(folder, split)
        if path.is_file():
            rows.splits[split] = []
            for number, line in numbered_lines(path):
                with rows.row(where(path, number)):
                    _add(rows, names, split, where(path, number), line)
    return rows.dataset()


def _add(rows: Rows, names: list[str], split: str, place: str, line: str) -> None:
    cells = line.split("\t")
    if len(cells) != 4:
        raise DataFault(place, f"{len(cells)} columns, not 4", "columns: cid, sid, sentence, marked sentence")
    _, sid, sentence, marked = cells
    if _MARKED.sub(r"\2", marked) != sentence:
        raise DataFault(place, f"sentence {sid}: without its marks the marked column is not the plain one")
    values: dict[str, tuple[str, ...]] = dict.fromkeys(names, ())
    for attribute, value in _MARKED.findall(marked):
        if attribute not in values:
            raise DataFault(place, f"sentence {sid}: unknown attribute {attribute!r}", "see vocab.label")
        values[attribute] = tuple(dict.fromkeys((*values[attribute], value)))
    rows.add(split, place, id=sid, text=sentence, asked=tuple(names), gold=Answer(values=values))
    rows.notes[f"several_values.{split}"] += sum(len(found) > 1 for found in values.values())


def _attributes(path: Path) -> list[str]:
    return [line for _, line in numbered_lines(path) if line and not line.startswith("[")]


def _file(folder: Path, split: str) -> Path:
    return folder / f"jdai.jave.fashion.{split}.sample"
