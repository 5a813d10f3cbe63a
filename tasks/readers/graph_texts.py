"""What the graphs' own files say about entities and relations: names, descriptions, readable titles."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ..task import DataFault
from .rows import json_file, numbered_lines, where
from .tables import table

#: Entity id to fields of an `Entity`.
Texts = dict[str, dict[str, Any]]

_SPELT_OUT = {"isa": "is a", "locatedin": "located in"}


def readable(id: str) -> str:
    """An id that is a name, as one: ``<http://dbpedia.org/resource/S%C3%A3o_Paulo>`` is ``São Paulo``."""
    name = re.sub(r"^<?https?://[^/]+/resource/(.*?)>?$", r"\1", id)
    return " ".join(unquote(name).replace("_", " ").split())


def nameless(id: str) -> str:
    """No name: the id says nothing to a reader (Wikidata, Freebase)."""
    return ""


def titles(folder: Path, relations: Sequence[str], faults: list[DataFault]) -> list[str]:
    """Relations by the last part of their ids: ``<http://dbpedia.org/ontology/birthPlace>`` is ``birth place``."""
    words = [readable(re.split(r"[/#]", name.strip("<>"))[-1]) for name in relations]
    return [_SPELT_OUT.get(w, re.sub(r"(?<=[a-z])[A-Z]", lambda capital: f" {capital[0].lower()}", w)) for w in words]


def freebase_titles(folder: Path, relations: Sequence[str], faults: list[DataFault]) -> list[str]:
    """Relations by ``relation2text.txt``; a text that several of them share gets the steps of its path before it.

    Thirteen relations of FB15k-237 are called ``currency`` there: one becomes ``film: estimated budget: currency``.
    """
    path = folder / "relation2text.txt"
    given = {name: fields["name"] for name, fields in _pairs(path, faults).items()} if path.is_file() else {}
    short = [given.get(name) or readable(name.rpartition("/")[2]) for name in relations]
    shared = Counter(short)
    return [_steps(name, text) if shared[text] > 1 else text for name, text in zip(relations, short, strict=True)]


def _steps(name: str, text: str) -> str:
    """``/film/film/budget./unit/money/currency``: the head's type, each hop's property, then the text."""
    hops = [hop.split("/") for hop in name.split(".")]
    steps = [hops[0][-2], *(hop[-1] for hop in hops[:-1])] if len(hops[0]) > 2 else []
    return ": ".join([*map(readable, steps), text])


def no_texts(folder: Path, faults: list[DataFault]) -> Texts:
    """The set has no texts beside its ids."""
    return {}


def wordnet_table(folder: Path, faults: list[DataFault]) -> Texts:
    """``entity2text.tsv``, if there is one: entity, lemmas with commas between them, gloss."""
    path, found = folder / "entity2text.tsv", Texts()
    for id, lemmas, gloss in table(path, ("entity", "lemmas", "gloss"), faults) if path.is_file() else ():
        name, *others = lemmas.split(", ")
        found[id] = {"name": name, "aliases": tuple(others), "description": gloss}
    return found


def wordnet_lines(folder: Path, faults: list[DataFault]) -> Texts:
    """``entity2text.txt.gz``: a synset's offset, a tab, its first lemma, a comma, its gloss."""
    found = _pairs(folder / "entity2text.txt.gz", faults)
    for id, fields in found.items():
        name, _, gloss = fields["name"].partition(", ")
        found[id] = {"name": name, "description": gloss}
    return found


def freebase(folder: Path, faults: list[DataFault]) -> Texts:
    """``entity2text.txt`` for names and, where it is there, ``entity2wikidata.json.gz`` for the rest.

    Wikidata's own label is an alias where it differs: it may mean something near (``Assassination``: ``attack``).
    """
    found = _pairs(folder / "entity2text.txt", faults)
    path = folder / "entity2wikidata.json.gz"
    for id, said in _json(path).items() if path.is_file() else ():
        if not isinstance(said, dict):
            faults.append(DataFault(str(path), f"{id} has no object"))
            continue
        label = said.get("label") if said.get("label") != said.get("wikidata_id") else ""  # Q1 stands for no label
        name = found.get(id, {}).get("name") or label or ""
        others = dict.fromkeys([label or name, *(said.get("alternatives") or ())])
        aliases = tuple(other for other in others if other != name)
        found[id] = {"name": name, "aliases": aliases, "description": said.get("description") or ""}
    return found


def _pairs(path: Path, faults: list[DataFault]) -> Texts:
    """Lines of an id, a tab and a text."""
    found = Texts()
    for number, line in numbered_lines(path):
        id, tab, text = line.partition("\t")
        if tab and id and text.strip():
            found[id] = {"name": text.strip()}
        elif line:
            faults.append(DataFault(where(path, number), f"not an 'id<TAB>text' line: {line[:60]!r}"))
    return found


def _json(path: Path) -> dict[str, Any]:
    data = json_file(path)
    if not isinstance(data, dict):
        raise DataFault(str(path), "not a JSON object")
    return data
