"""FB15K-237 - DB15K: Freebase and DBpedia aligned, after MMKG's FB15K-DB15K."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ..alignment import Schema
from ..dataset import Dataset
from ..graph import Entity, KnowledgeGraph, Relation
from ..images import Image
from ..task import DataFault
from .dbp15k import label
from .pairs import aligned, fields, shuffled, unnamed
from .tables import picture_files

#: The shares of seed pairs that the papers train on, by reader.
SEEDS = {"fb15k237_db15k": 0.2, "fb15k237_db15k_50": 0.5, "fb15k237_db15k_80": 0.8}
_FREEBASE = "<http://rdf.freebase.com/ns/"


def recognise(folder: Path) -> str | None:
    """``fb15k237_db15k`` (20 % seed pairs) if the triples of both graphs are there."""
    files = ("fb15k237_triples.txt.gz", "db15k_triples.txt.gz", "links.tsv")
    return "fb15k237_db15k" if all((folder / file).is_file() for file in files) else None


def read(folder: Path, name: str) -> Dataset:
    """Read the two graphs and the links; the reader's name says the share of seed pairs (see `pairs.aligned`).

    Freebase entities have an id and no name, as in the benchmark, but numbers as ``attributes``
    (``people.person.date_of_birth``); DBpedia entities have the name in their URI and no numbers. Repeated triples of
    DB15K are kept and counted. Know that many of its triples are wrong in the source: by them, 8,319 entities are of
    the type Island. Pictures: the flags of countries, flat on the left and waved on the right, attached by country
    name (see `pairs.unnamed`), and on the left three web photos for each of ten entities.
    """
    numbers: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for id, attribute, value in fields(folder / "fb15k_numerical_triples.txt.gz", 3):
        key = attribute.removeprefix(_FREEBASE).rstrip(">")
        numbers[id][key] = (*numbers[id].get(key, ()), value)
    faults: list[DataFault] = []
    left_notes, right_notes = Counter[str](), Counter[str]()
    drawn = folder / "entity_images.tsv"
    flat = dict(picture_files(drawn, "entity", faults, left_notes, only=("kg", "fb15k237")))
    waved = dict(picture_files(drawn, "entity", faults, right_notes, only=("kg", "db15k")))
    photos: dict[str, list[Image]] = defaultdict(list)
    for id, file in picture_files(folder / "fb15k_images.tsv", "entity", faults, left_notes):
        photos[id].append(Image(source=file))

    def freebase(id: str) -> Entity:
        flag = (unnamed(flat[id]),) if id in flat else ()
        return Entity(id=id, attributes=numbers.get(id, {}), images=(*flag, *photos.get(id, ())))

    def dbpedia(id: str) -> Entity:
        return Entity(id=id, name=label(id), images=(unnamed(waved[id]),) if id in waved else ())

    left = _graph(folder / "fb15k237_triples.txt.gz", freebase, freebase_title, left_notes)
    right = _graph(folder / "db15k_triples.txt.gz", dbpedia, dbpedia_title, right_notes)
    links = [(one, two) for one, two in fields(folder / "links.tsv", 2)]
    return aligned(name, left, right, links, SEEDS[name], Schema(left="Freebase", right="DBpedia"), faults)


def freebase_title(relation: str) -> str:
    """``/location/country/capital`` as ``country capital``; the two halves of a compound with a stroke between."""
    halves = (half.strip("/").partition("/")[2] for half in relation.split("./"))
    return " / ".join(half.replace("/", " ").replace("_", " ") for half in halves)


def dbpedia_title(relation: str) -> str:
    """``<http://dbpedia.org/ontology/birthPlace>`` as ``birth place``."""
    last = re.split(r"[/#]", relation.strip("<>"))[-1]
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", last).lower()


def _graph(
    path: Path, entity: Callable[[str], Entity], title: Callable[[str], str], notes: Counter[str]
) -> KnowledgeGraph:
    triples = list(fields(path, 3))
    entities = {id: at for at, id in enumerate(shuffled({e for h, _, t in triples for e in (h, t)}, path.name))}
    relations = {id: at for at, id in enumerate(sorted({r for _, r, _ in triples}))}
    array = np.array([(entities[h], relations[r], entities[t]) for h, r, t in triples], np.int64).reshape(-1, 3)
    if repeated := len(triples) - len(set(triples)):
        notes["repeated_triples"] = repeated
    return KnowledgeGraph(
        path.name.partition("_")[0],
        tuple(map(entity, entities)),
        tuple(Relation(name=id, title=title(id)) for id in relations),
        {"train": array},
        dict(notes),
    )
