"""Country flags as an alignment set: countries with their flat flags, and the same with waved ones."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..alignment import Schema
from ..dataset import Dataset
from ..graph import Entity, KnowledgeGraph, Relation
from ..task import DataFault
from .pairs import SEED, aligned, shuffled, unnamed
from .tables import table

#: The share of the links that are seed pairs.
SEEDS = 0.3
COLUMNS = "cca2 cca3 common_name official_name region subregion capital languages currencies borders_cca3".split()
RELATIONS = ("region", "subregion", "language", "currency", "borders")

#: A fact of a country: the country's code, the relation, and the country or the value at the other end.
Fact = tuple[str, str, str]


def recognise(folder: Path) -> str | None:
    """``country_flags`` if the facts and both drawings are there."""
    is_here = (folder / "countries.tsv").is_file() and (folder / "flat").is_dir() and (folder / "waved").is_dir()
    return "country_flags" if is_here else None


def read(folder: Path, name: str) -> Dataset:
    """Read the countries twice: on the left with flat flags, on the right with waved ones.

    The source has one set of facts. So that structure tells something and not everything, each fact is told by the left
    graph alone, by the right alone, or by both, a third each, by a hash (two thirds a graph, half of them shared). A
    border of two countries is one fact. Regions, subregions, languages and currencies are entities, too, unlinked. The
    capital is an attribute, drawn like the other facts, and nearly names the country. The left graph has the common
    names, the right one the official names. Ids are ``flat-17`` and ``waved-203``, numbered in orders of their own;
    codes and file names, the same on both sides, appear nowhere. 30 % of the links are seeds (see `pairs.aligned`).
    """
    faults: list[DataFault] = []
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in table(folder / "countries.tsv", COLUMNS, faults)]
    left, ids = _graph("flat", rows, folder, "common_name")
    right, others = _graph("waved", rows, folder, "official_name")
    links = [(ids[row["cca2"]], others[row["cca2"]]) for row in rows]
    guideline = "Countries and territories with their flags; regions, languages and currencies."
    schema = Schema(left="flat flags", right="waved flags", guideline=guideline)
    return aligned(name, left, right, links, SEEDS, schema, faults)


def told(fact: Fact, side: str) -> bool:
    """Whether the graph ``flat`` or ``waved`` tells a fact: a third is told by either alone, a third by both."""
    digest = hashlib.sha256("\t".join((str(SEED), *fact)).encode()).digest()
    return int.from_bytes(digest[:8], "big") % 3 != ("flat", "waved").index(side)


def _facts(rows: list[dict[str, str]]) -> Iterator[Fact]:
    """Each fact once; a country is named by its two-letter code, a value by ``relation:value``."""
    codes = {row["cca3"]: row["cca2"] for row in rows}
    columns = {"region": "region", "subregion": "subregion", "language": "languages", "currency": "currencies"}
    for row in rows:
        for relation, column in columns.items():
            for value in filter(None, row[column].split("|")):
                yield row["cca2"], relation, f"{relation}:{value}"
        for neighbour in filter(None, row["borders_cca3"].split("|")):
            if row["cca3"] < neighbour and neighbour in codes:
                yield row["cca2"], "borders", codes[neighbour]


def _graph(side: str, rows: list[dict[str, str]], folder: Path, named: str) -> tuple[KnowledgeGraph, dict[str, str]]:
    """One of the graphs, and each country's code with the id it has there."""
    countries = {row["cca2"]: row for row in rows}
    facts = [fact for fact in _facts(rows) if told(fact, side)]
    values = {end for _, _, end in facts if end not in countries}
    number = {key: at for at, key in enumerate(shuffled({*countries, *values}, side))}
    pictures = {code: folder / side / f"{code.lower()}.jpg" for code in countries}
    missing = [code for code, file in pictures.items() if not file.is_file()]

    def entity(key: str) -> Entity:
        id = f"{side}-{number[key]}"
        if key not in countries:
            return Entity(id=id, name=key.partition(":")[2])
        row = countries[key]
        capital = row["capital"] if told((key, "capital", row["capital"]), side) else ""
        return Entity(
            id=id,
            name=row[named],
            attributes={"capital": tuple(capital.split("|"))} if capital else {},
            images=() if key in missing else (unnamed(pictures[key]),),
        )

    triples = [(number[h], RELATIONS.index(r), number[t]) for h, r, t in facts]
    graph = KnowledgeGraph(
        side,
        tuple(map(entity, number)),
        tuple(Relation(name=relation, title=relation) for relation in RELATIONS),
        {"train": np.array(triples, np.int64).reshape(-1, 3)},
        {"pictures_missing": len(missing)} if missing else {},
    )
    return graph, {code: f"{side}-{number[code]}" for code in countries}
