"""DBP15K: the English DBpedia aligned with the Chinese, the Japanese or the French one."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from ..alignment import Schema
from ..dataset import Dataset
from ..graph import Entity, KnowledgeGraph, Relation
from ..task import DataFault
from .pairs import aligned, fields, shuffled, unnamed
from .tables import picture_files

LANGUAGES = {"zh": "Chinese", "ja": "Japanese", "fr": "French"}
#: The share of the links that are seed pairs in every paper.
SEEDS = 0.3


def recognise(folder: Path) -> str | None:
    """The pair of languages by the file of translated names."""
    for code in LANGUAGES:
        if (folder / f"dbp_{code}_en.json.gz").is_file() and (folder / "ill_ent_ids").is_file():
            return f"dbp15k_{code}_en"
    return None


def read(folder: Path, name: str) -> Dataset:
    """Read the two graphs and the links; 30 % of these are seed pairs (see `pairs.aligned`).

    An entity's id is its URI and its name the URI's last part. The source's own numbers are used nowhere: those of
    linked entities have a constant distance. For the same reason entities are numbered in a drawn order. Relations
    have numbers only (``relation 1123``). ``aliases`` in the left graph are the name's words in English, as a machine
    translated them. Names and aliases are a modality, which a student may leave out; facts in words are made of names,
    and ids are URIs, so that such a student must read neither. Pictures are the flags of countries, waved on the
    left and flat on the right, attached by country name (see `pairs.unnamed`).
    """
    code = name.split("_")[1]
    translated = _translated(folder / f"dbp_{code}_en.json.gz")
    faults: list[DataFault] = []
    left, uris = _graph(folder, "1", f"dbpedia_{code}", translated, faults)
    right, others = _graph(folder, "2", "dbpedia_en", {}, faults)
    try:
        links = [(uris[one], others[two]) for one, two in fields(folder / "ill_ent_ids", 2)]
    except KeyError as error:
        raise DataFault(str(folder / "ill_ent_ids"), f"no entity has the number {error.args[0]}") from None
    schema = Schema(left=f"the {LANGUAGES[code]} DBpedia", right="the English DBpedia")
    return aligned(name, left, right, links, SEEDS, schema, faults)


def label(uri: str) -> str:
    """The name in a DBpedia URI: its last part, decoded, with blanks for underscores."""
    return unquote(uri.strip("<>").partition("/resource/")[2]).replace("_", " ")


def _translated(path: Path) -> dict[str, str]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return {str(number): " ".join(words) for number, words in json.load(file)}
    except FileNotFoundError:
        raise DataFault(str(path), "there is no such file") from None
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise DataFault(str(path), f"not a gzipped JSON list of numbers with words: {error}") from None


def _graph(
    folder: Path, side: str, name: str, translated: dict[str, str], faults: list[DataFault]
) -> tuple[KnowledgeGraph, dict[str, str]]:
    """One of the graphs, and each of the source's numbers with the URI it stands for."""
    uris = {row[0]: row[1] for row in fields(folder / f"ent_ids_{side}.gz", 2)}
    notes: Counter[str] = Counter()
    pictures = dict(picture_files(folder / "entity_images.tsv", "entity_id", faults, notes, only=("kg", side)))

    def entity(number: str) -> Entity:
        words = translated.get(number, "")
        return Entity(
            id=uris[number],
            name=label(uris[number]),
            aliases=(words,) if words else (),
            images=(unnamed(pictures[number]),) if number in pictures else (),
        )

    triples = list(fields(folder / f"triples_{side}.gz", 3))
    entities = {number: at for at, number in enumerate(shuffled(uris, f"{name}.entities"))}
    relations = {number: at for at, number in enumerate(shuffled({r for _, r, _ in triples}, f"{name}.relations"))}
    try:
        array = np.array([(entities[h], relations[r], entities[t]) for h, r, t in triples], np.int64).reshape(-1, 3)
    except KeyError as error:
        raise DataFault(str(folder / f"triples_{side}.gz"), f"no entity has the number {error.args[0]}") from None
    graph = KnowledgeGraph(
        name,
        tuple(map(entity, entities)),
        tuple(Relation(name=number, title=f"relation {number}") for number in relations),
        {"train": array},
        dict(notes),
    )
    return graph, uris
