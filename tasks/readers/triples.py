"""Graphs to be completed: triples in ``train.txt``, ``valid.txt`` and ``test.txt``, texts and pictures beside them."""

from __future__ import annotations

import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import ValidationError

from ..completion import Schema
from ..dataset import Dataset
from ..graph import Entity, KnowledgeGraph, Relation
from ..images import Image
from ..queries import Queries
from ..task import DataFault
from . import graph_texts as texts
from .rows import numbered_lines, reason, where
from .tables import picture_files

SPLITS = ("train", "valid", "test")


class Pictures(NamedTuple):
    """A table of pictures, relative to the set's folder; ``only`` a column and the value that its rows must have."""

    table: str
    only: tuple[str, str] | None = None


@dataclass(frozen=True)
class Layout:
    """What lies beside a set's triples.

    Attributes:
        describe: reads the texts about entities.
        closed: the texts list the graph's entities, also those that no triple here holds; else they come from the
            triples, since the texts may be about more (those of FB15k-237 are about FB15K's).
        numbered: the triples are numbers, and ``entity2id.txt`` and ``relation2id.txt`` list what they mean.
        name: an entity's name by its id, where no text gives one.
        titles: the relations' names in prose.
        pictures: the tables of pictures that belong to the set.
    """

    describe: Callable[[Path, list[DataFault]], texts.Texts] = texts.no_texts
    closed: bool = False
    numbered: bool = False
    name: Callable[[str], str] = texts.readable
    titles: Callable[[Path, list[str], list[DataFault]], list[str]] = texts.titles
    pictures: tuple[Pictures, ...] = ()


_OWN = (Pictures("images.tsv"),)
_MEA = "../../mea/fb15k237_db15k/"
_COUNTRIES = Layout(pictures=(Pictures("../images.tsv"),))
_WORDNET = Layout(texts.wordnet_table, closed=True, pictures=_OWN)

#: How each set is laid out; ``triples`` is anybody's own graph, with ``entity2text.tsv`` and ``images.tsv`` if there.
LAYOUTS: dict[str, Layout] = {
    "db15k": Layout(numbered=True, pictures=_OWN),
    "fb15k237": Layout(
        texts.freebase,
        name=texts.nameless,
        titles=texts.freebase_titles,
        pictures=(Pictures(_MEA + "fb15k_images.tsv"), Pictures(_MEA + "entity_images.tsv", ("kg", "fb15k237"))),
    ),
    "mkg_w": Layout(numbered=True, name=texts.nameless),
    "mkg_y": Layout(numbered=True),
    "umls": Layout(),
    "kinship": Layout(),
    "nations": Layout(),
    "wn18rr": Layout(texts.wordnet_lines, closed=True, name=texts.nameless, pictures=_OWN),
    "wn9_img": _WORDNET,
    "wordnet_imagenet": _WORDNET,
    "countries_s1": _COUNTRIES,
    "countries_s2": _COUNTRIES,
    "countries_s3": _COUNTRIES,
    "triples": Layout(texts.wordnet_table, pictures=_OWN),
}


def recognise(folder: Path) -> str | None:
    """Which set a folder holds: by the files beside ``train.txt`` and its first line, a small one by its folder's name.

    Any other folder whose ``train.txt`` begins with a triple is ``triples``.
    """
    train = _file(folder, "train")
    cells = next(numbered_lines(train), (1, ""))[1].split("\t") if train else []
    if len(cells) != 3:
        return None
    head, relation, _ = cells
    if (folder / "relation2id.txt").is_file():
        first = next((line for number, line in numbered_lines(folder / "entity2id.txt") if number == 2), "")
        starts = {"<http://dbpedia.org/": "db15k", "http://www.wikidata.org/": "mkg_w"}
        return next((name for start, name in starts.items() if first.startswith(start)), "mkg_y")
    if (folder / "relation2text.txt").is_file() and head.startswith("/m/"):
        return "fb15k237"
    if (folder / "entity2text.txt.gz").is_file():
        return "wn18rr"
    if (folder / "entity2text.tsv").is_file() and re.fullmatch(r"n\d{8}", head):
        return "wn9_img" if relation.startswith("_") else "wordnet_imagenet"
    own = f"countries_{folder.name}".lower() if relation in ("locatedin", "neighbor") else folder.name.lower()
    return own if LAYOUTS.get(own) in (_COUNTRIES, Layout()) else "triples"


def read(folder: Path, name: str) -> Dataset:
    """Read a graph and ask every triple of every split twice, see `Queries`.

    Notes count what the graph holds and what to know of the splits: ``repeated.S`` are lines that split S already had,
    ``also_in_T.S`` those that the earlier split T has (most of DB15K's valid stands in its train),
    ``unseen_entity.S`` those with an entity that no training triple holds. All of them stay where they are.
    """
    layout, faults = LAYOUTS[name], list[DataFault]()
    notes: Counter[str] = Counter()
    described = layout.describe(folder, faults)
    if layout.numbered:
        entities, relations = _listed(folder / "entity2id.txt"), _listed(folder / "relation2id.txt")
        numbers: Mapping[str, int] = {str(i): i for i in range(len(entities))}
        relation_numbers: Mapping[str, int] = {str(i): i for i in range(len(relations))}
    else:
        numbers = _Numbered(described if layout.closed else ())
        relation_numbers = _Numbered()
    files = {split: path for split in SPLITS if (path := _file(folder, split))}
    if "train" not in files:
        raise DataFault(str(folder), "no train.txt and no train.txt.gz", "name the set's own folder")
    triples = {split: _triples(path, numbers, relation_numbers, faults) for split, path in files.items()}
    if not layout.numbered:
        entities, relations = list(numbers), list(relation_numbers)
    _count_splits(triples, len(entities), len(relations), notes)
    described_entities = _entities(folder, layout, entities, described, faults, notes)
    titles = layout.titles(folder, relations, faults)
    notes["relations_sharing_a_title"] = sum(count for count in Counter(titles).values() if count > 1)
    graph = KnowledgeGraph(
        name,
        described_entities,
        tuple(Relation(name=id, title=title) for id, title in zip(relations, titles, strict=True)),
        triples,
        {key: count for key, count in notes.items() if count},
    )
    splits = {split: Queries(graph, split) for split in triples}
    schema = Schema(relations=graph.relations)
    return Dataset(name, "completion", schema, splits, tuple(faults), graph.notes, (graph,))


class _Numbered(dict[str, int]):
    """Ids by number; an id that was not seen before gets the next one."""

    def __init__(self, ids: Mapping[str, object] | tuple[()] = ()) -> None:
        super().__init__((id, number) for number, id in enumerate(ids))

    def __missing__(self, id: str) -> int:
        self[id] = number = len(self)
        return number


def _file(folder: Path, split: str) -> Path | None:
    found = (folder / f"{split}.txt", folder / f"{split}.txt.gz")
    return next((path for path in found if path.is_file()), None)


def _listed(path: Path) -> list[str]:
    """The names of ``entity2id.txt``: how many in the first line, then a name, a blank and its number, from 0 up."""
    lines = numbered_lines(path)
    _, count = next(lines, (1, ""))
    names: list[str] = []
    for number, line in lines:
        name, _, id = line.rpartition(" ")
        if name and id == str(len(names)):
            names.append(name)
        elif line:
            raise DataFault(where(path, number), f"not a name and the number {len(names)}: {line[:60]!r}")
    if count != str(len(names)):
        raise DataFault(where(path, 1), f"says {count[:20]!r}, but {len(names)} names follow", "is the file complete?")
    return names


def _triples(
    path: Path, entities: Mapping[str, int], relations: Mapping[str, int], faults: list[DataFault]
) -> np.ndarray:
    """The triples of a file as numbers; a line that is none is appended to ``faults``."""
    found = array("q")
    for number, line in numbered_lines(path):
        cells = line.split("\t")
        if len(cells) == 3 and all(cells):
            try:
                found.extend((entities[cells[0]], relations[cells[1]], entities[cells[2]]))
            except KeyError as missing:
                problem = f"{missing.args[0]!r} is not in entity2id.txt or relation2id.txt: {line[:60]!r}"
                faults.append(DataFault(where(path, number), problem))
        elif line:
            faults.append(DataFault(where(path, number), f"not a 'head<TAB>relation<TAB>tail' line: {line[:60]!r}"))
    return np.array(found, dtype=np.int64).reshape(-1, 3)


def _entities(
    folder: Path,
    layout: Layout,
    ids: list[str],
    described: texts.Texts,
    faults: list[DataFault],
    notes: Counter[str],
) -> tuple[Entity, ...]:
    """The entities with their texts and pictures; notes: how many have which."""
    pictures: dict[str, list[Image]] = defaultdict(list)
    for relative, only in layout.pictures:
        for owner, source in picture_files(folder / relative, "entity", faults, notes, only):
            pictures[owner].append(Image(source=source, example=owner))
    found = []
    for id in ids:
        fields = {"name": layout.name(id), **described.get(id, {})}
        try:
            found.append(Entity(id=id, images=tuple(pictures.pop(id, ())), **fields))
        except ValidationError as error:
            raise DataFault(str(folder), f"entity {id}: {reason(error)}") from None
    notes["entities_without_name"] = sum(not entity.name for entity in found)
    notes["entities_without_description"] = sum(not entity.description for entity in found)
    notes["entities_with_picture"] = sum(bool(entity.images) for entity in found)
    notes["pictures"] = sum(len(entity.images) for entity in found)
    notes["pictures_of_no_entity"] = sum(map(len, pictures.values()))
    return tuple(found)


def _count_splits(triples: Mapping[str, np.ndarray], entities: int, relations: int, notes: Counter[str]) -> None:
    """The notes on the graph's size and on what its splits share, see `read`."""
    notes["entities"], notes["relations"] = entities, relations
    keys = {split: (some[:, 0] * relations + some[:, 1]) * entities + some[:, 2] for split, some in triples.items()}
    seen = np.zeros(entities, bool)
    seen[triples["train"][:, ::2]] = True
    earlier: list[str] = []
    for split, some in triples.items():
        notes[f"triples.{split}"] = len(some)
        notes[f"repeated.{split}"] = len(some) - len(np.unique(keys[split]))
        for other in earlier:
            notes[f"also_in_{other}.{split}"] = int(np.isin(keys[split], keys[other]).sum())
        notes[f"unseen_entity.{split}"] = int((~seen[some[:, ::2]]).any(axis=1).sum())
        earlier.append(split)
