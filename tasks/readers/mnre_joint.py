"""MNRE as joint extraction: the same tweets, each once, with all of its triples (the form of UMRC and MUMRC)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..dataset import Dataset
from ..ner import Entity
from ..record import Record
from ..relations import Answer, Triple
from ..task import DataFault
from .mnre import SCHEMA, Beside, mention
from .rows import Rows, json_rows, where

#: The source's name of each split.
FILES = {"train": "train", "valid": "dev", "test": "test"}
#: What the source calls every mention's type.
UNTYPED = "Entity"


class _Row(Record):
    """A line in the DyGIE form: the offsets are inclusive and count words."""

    sentences: tuple[tuple[str, ...]]
    ner: tuple[tuple[tuple[int, int, str], ...]]
    relations: tuple[tuple[tuple[int, int, int, int, str], ...]]
    img_id: str
    doc_key: str


def recognise(folder: Path) -> str | None:
    """``mnre_joint`` if its files are there and begin like a line of it."""
    if not (folder / "dev.json").is_file() or not (folder / "train.json").is_file():
        return None
    try:
        with (folder / "train.json").open(encoding="utf-8") as file:
            first = json.loads(file.readline(100_000))
    except (ValueError, RecursionError):
        return None
    return "mnre_joint" if isinstance(first, dict) and {"sentences", "ner", "img_id"} <= first.keys() else None


def read(folder: Path, name: str) -> Dataset:
    """Read the tweets, no pair given; captions and pictures come from ``../mnre``.

    Pairs without relation (``None``) are no triples. Notes, by split: ``mentions`` and ``pairs`` of the source,
    ``also_none`` (pairs that it lists with a relation and as ``None``: the relation stands), ``without_triple``
    (tweets). Mentions of no triple are not kept; the source types none ("Entity"), which is an empty type here.
    """
    rows = Rows(name, "relations", SCHEMA)
    beside = Beside(rows, folder.parent / "mnre")
    for split, called in FILES.items():
        path = folder / f"{called}.json"
        if path.is_file():
            rows.splits[split] = []
            for number, row in json_rows(path, _Row, rows.faults):
                with rows.row(where(path, number)):
                    _add(rows, split, path, number, row, beside)
    if not rows.splits:
        raise DataFault(str(folder), "no train.json, dev.json or test.json", "name the set's own folder")
    return rows.dataset()


def _add(rows: Rows, split: str, path: Path, number: int, row: _Row, beside: Beside) -> None:
    place, words = where(path, number), row.sentences[0]
    mentions: dict[tuple[int, int], Entity] = {}
    for first, last, type in row.ner[0]:
        found = mention(words, first, last + 1, "" if type == UNTYPED else type)
        if found is None:
            raise DataFault(place, f"no words at {[first, last]} of {len(words)}", "the offsets are inclusive, from 0")
        mentions[first, last] = found
    triples: dict[tuple[Any, ...], Triple] = {}
    for *offsets, relation in row.relations[0]:
        head, tail = mentions.get((offsets[0], offsets[1])), mentions.get((offsets[2], offsets[3]))
        if head is None or tail is None:
            raise DataFault(place, f"a relation between {offsets}, which are not two of its mentions")
        if relation != SCHEMA.none:
            triples[(*offsets, relation)] = Triple(head=head, relation=relation, tail=tail)
    id = f"{split}-{number}"
    fields = beside.of(row.img_id, id)
    rows.add(
        split,
        place,
        id=id,
        text=" ".join(words),
        words=words,
        gold=Answer(triples=tuple(triples.values())),
        **fields,
    )
    beside.count(split, fields)
    related = {key[:4] for key in triples}
    rows.notes[f"mentions.{split}"] += len(mentions)
    rows.notes[f"pairs.{split}"] += len(row.relations[0])
    rows.notes[f"also_none.{split}"] += sum(
        relation == SCHEMA.none and tuple(offsets) in related for *offsets, relation in row.relations[0]
    )
    rows.notes[f"without_triple.{split}"] += not triples
