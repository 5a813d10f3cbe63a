"""WikiMEL, Richpedia-MEL and WikiDiverse: mentions in short texts, linked to Wikidata."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..dataset import Dataset
from ..graph import Entity, KnowledgeGraph
from ..images import Image
from ..linking import Schema
from ..task import DataFault
from .mentions import add_mentions, linked
from .pairs import unnamed
from .rows import Rows, json_file
from .tables import picture_files

PEOPLE = Schema(knowledge_base="Wikidata", guideline="People, with the facts that Wikidata has about them.")
#: A file that only this set has.
SIGNS = {"wikimel": "Wikidata-MEL.json", "richpedia_mel": "qid2abs_long.json.gz", "wikidiverse": "WikiDiverse.json"}


def recognise(folder: Path) -> str | None:
    """Which of the three sets a folder holds, by a file that only it has."""
    return next((name for name, file in SIGNS.items() if (folder / file).is_file()), None)


def read(folder: Path, name: str) -> Dataset:
    """Read one of the sets, one example a mention (see `mentions.add_mentions`).

    No example bears an id of the source: Richpedia-MEL's are the answers. Pictures of the same set are named by the
    answer, too (see `pairs.unnamed`). Most captions' pictures exist as addresses only, and are not read.
    """
    readers: dict[str, Callable[[Path, str], Dataset]] = {
        "wikimel": _wikimel,
        "richpedia_mel": _richpedia,
        "wikidiverse": _wikidiverse,
    }
    return readers[name](folder, name)


def _wikimel(folder: Path, name: str) -> Dataset:
    rows = Rows(name, "linking", PEOPLE, ("train", "valid", "test"))
    samples = json_file(folder / "Wikidata-MEL.json")
    pictures = _pictures(rows, folder)
    for split, ids in json_file(folder / "splits.json").items():
        for id in ids:
            place = f"{folder / 'Wikidata-MEL.json'}, sample {id}"
            with rows.row(place):
                sample = _sample(samples, id, place)
                mentions = _parallel(place, sample["mentions"], sample["answer"])
                shown = tuple(Image(source=file) for file in pictures[id])
                add_mentions(rows, _SPLITS[split], place, sample["sentence"], mentions, shown)
    base = _people(name, folder, json_file(folder / "qid2abs.json"))
    return linked(rows, base)


def _richpedia(folder: Path, name: str) -> Dataset:
    """Long descriptions for the knowledge base; the file of MELBench, other sentences without splits, is not read."""
    rows = Rows(name, "linking", PEOPLE, ("train", "test"))
    pictures = _pictures(rows, folder)
    for split in ("train", "test"):
        path = folder / f"{split}.json"
        for id, sample in json_file(path).items():
            place = f"{path}, sample {id}"
            with rows.row(place):
                mentions = _parallel(place, [sample["mentions"]], [sample["answer"]])
                shown = tuple(map(unnamed, pictures[id]))
                add_mentions(rows, split, place, sample["sentence"], mentions, shown)
    return linked(rows, _people(name, folder, json_file(folder / "qid2abs_long.json.gz")))


def _wikidiverse(folder: Path, name: str) -> Dataset:
    """The knowledge base is the answers that occur in the data, by their Wikipedia titles: no descriptions.

    Captions that the source lists in two splits are read in the later one alone (test before valid before train), and
    counted in the notes (``captions_in_a_later_split.train``).
    """
    schema = Schema(knowledge_base="Wikidata", guideline="People, places, organisations, events and more.")
    rows = Rows(name, "linking", schema, ("train", "valid", "test"))
    samples = {sample["id"]: sample for sample in json_file(folder / "WikiDiverse.json")}
    splits = json_file(folder / "splits.json")
    taken: set[int] = set()
    for split in ("test", "val", "train"):
        for id in splits[split]:
            place = f"{folder / 'WikiDiverse.json'}, id {id}"
            if id in taken:
                rows.notes[f"captions_in_a_later_split.{_SPLITS[split]}"] += 1
                continue
            with rows.row(place):
                sample = _sample(samples, id, place)
                mentions = _parallel(place, sample["mention"], sample["answer"])
                add_mentions(rows, _SPLITS[split], place, sample["sentence"], mentions)
        taken.update(splits[split])
    titles: dict[str, dict[str, None]] = defaultdict(dict)
    for sample in samples.values():
        for title, id in zip(sample["entity"], sample["answer"], strict=True):
            titles[id][title] = None
    flags = dict(picture_files(folder / "entity_images.tsv", "qid", rows.faults, rows.notes))
    entities = (
        Entity(id=id, name=first, aliases=tuple(others), images=(Image(source=flags[id]),) if id in flags else ())
        for id, (first, *others) in sorted(titles.items())  # in the captions' order they would tell the answers
    )
    return linked(rows, KnowledgeGraph(name, tuple(entities)))


_SPLITS = {"train": "train", "dev": "valid", "val": "valid", "test": "test"}


def _pictures(rows: Rows, folder: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for id, file in picture_files(folder / "images.tsv", "id", rows.faults, rows.notes):
        found[id].append(file)
    return found


def _people(name: str, folder: Path, descriptions: dict[str, str]) -> KnowledgeGraph:
    names = json_file(folder / "qid2ne.json")
    entities = tuple(Entity(id=id, name=names[id], description=descriptions.get(id, "")) for id in names)
    notes = Counter(entities_without_description=sum(not entity.description for entity in entities))
    return KnowledgeGraph(name, entities, notes={key: count for key, count in notes.items() if count})


def _sample(samples: dict[Any, Any], id: Any, place: str) -> Any:
    if id not in samples:
        raise DataFault(place, "the splits name it, but there is no such sample")
    return samples[id]


def _parallel(place: str, mentions: list[str], answers: list[str]) -> list[tuple[str, str]]:
    if len(mentions) != len(answers):
        raise DataFault(place, f"{len(mentions)} mentions and {len(answers)} answers", "one answer a mention")
    return list(zip(mentions, answers, strict=True))
