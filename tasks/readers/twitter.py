"""Twitter-2015, Twitter-2017 and Twitter-GMNER: posts with BIO tags, captions and a few pictures."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..dataset import Dataset
from ..ner import EntityType, Schema
from ..record import Record
from ..task import DataFault
from .conll import OPENING, add_posts, posts
from .rows import Rows, json_rows, numbered_lines, where

# Guidelines after the training tags of each set: what its annotators did, also where it is a matter of taste.
_PERSON = (
    "Name of a single human being, real or from a story: given name, family name, both, a stage name or a "
    "nickname, but no job or family word alone such as 'coach' or 'mum'."
)
_PLACE = (
    "Name of a place on the map: a country, state, city, district, street, park, building, stadium, "
    "mountain, water or region, but not a place without a name such as 'the beach'."
)
_GROUP = (
    "Name of an organised group: a company, brand or media house, a school, a party, an authority, an army, "
    "a sports club or team, even where only its city or nickname stands for it."
)
_REST = (
    "Any other proper name: an event, festival, award, holiday or cup; the title of a film, series, song, "
    "album, book or game; a product, law or disease; but no date, and no name of a person, place or group."
)
_WITH_HASH = "A hashtag that is such a name counts, together with its '#'; an @handle does not."
_WITHOUT_MARKS = "A hashtag or @handle that is such a name counts, without its '#' or '@'."
_ORIGIN = "Words for where somebody or something comes from, such as 'British', usually belong here."


def _schema(fourth: str, marks: str, person: str = "", place: str = "", group: str = "", rest: str = "") -> Schema:
    """The four types of a Twitter set: ``marks`` goes for all, the others say what is this set's own way."""
    types = (
        ("PER", "person", _PERSON, person),
        ("LOC", "location", _PLACE, place),
        ("ORG", "organisation", _GROUP, group),
        (fourth, "other name", _REST, rest),
    )
    return Schema(
        types=tuple(
            EntityType(name=name, title=title, guideline=" ".join(filter(None, (base, own, marks))))
            for name, title, base, own in types
        )
    )


SCHEMAS = {
    "twitter2015": _schema(
        "OTHER",
        _WITH_HASH,
        group="Music bands belong here.",
        rest="Sports leagues such as the NBA and characters of fiction often belong here.",
    ),
    "twitter2017": _schema(
        "MISC",
        _WITHOUT_MARKS,
        person="Music bands belong here.",
        place=_ORIGIN,
        group="Sports leagues such as the NBA or the Premier League belong here.",
    ),
    "gmner": _schema(
        "OTHER",
        _WITHOUT_MARKS,
        place=_ORIGIN,
        group="Music bands and sports leagues such as the NBA belong here.",
        rest="A social network belongs here where its app or site is meant.",
    ),
}


class _Caption(Record):
    image_id: str
    caption: str


class _Boxes(Record):
    image_id: str
    width: int
    height: int
    objects: list[dict[str, Any]]


def recognise(folder: Path) -> str | None:
    """Which of the three sets a folder holds, by its files and by the name of its fourth label."""
    train = folder / "train.txt"
    if not train.is_file():
        return None
    with train.open(encoding="utf-8", errors="replace") as file:
        if not file.readline().lstrip("\ufeff").startswith(OPENING):
            return None
    if (folder / "boxes.jsonl").is_file():
        return "gmner"
    tags = {tag for post in posts(train) for tag in post.tags}
    return "twitter2017" if "B-MISC" in tags else "twitter2015"


def read(folder: Path, name: str) -> Dataset:
    """Read one of the sets from its original files; ``dev.txt`` becomes the split ``valid``.

    Boxes of Twitter-GMNER are counted in the notes and kept out of the context: they name the gold entities.
    """
    rows = Rows(name, "ner", SCHEMAS[name])
    captions = dict(_captions(rows, folder))
    pictures = dict(_pictures(folder))
    files = {"train": ["train.txt"], "valid": ["valid.txt", "dev.txt"], "test": ["test.txt"]}
    for split, names in files.items():
        for path in (folder / file for file in names):
            if path.is_file():
                add_posts(rows, split, path, captions, pictures)
    if not rows.splits:
        raise DataFault(str(folder), "no train.txt, valid.txt, dev.txt or test.txt", "name the set's own folder")
    _count_boxes(rows, folder / "boxes.jsonl")
    return rows.dataset()


def _captions(rows: Rows, folder: Path) -> Iterator[tuple[str, str]]:
    """Image id and caption: one ``<id>.jpg :<caption>`` a line (BLIP-2), or JSON lines (mPLUG-Owl)."""
    plain, owl = folder / "captions_blip2.txt", folder / "captions_owl.jsonl.gz"
    if plain.is_file():
        for number, line in numbered_lines(plain):
            file, colon, caption = line.partition(" :")
            if not colon:
                rows.faults.append(DataFault(where(plain, number), "not a '<image>.jpg :<caption>' line"))
            elif caption.strip():
                yield file.removesuffix(".jpg"), caption.strip()
            else:
                rows.notes["empty_captions"] += 1
    if owl.is_file():
        for _, row in json_rows(owl, _Caption, rows.faults):
            yield row.image_id, row.caption.strip()


def _pictures(folder: Path) -> Iterator[tuple[str, Path]]:
    """Image id and file, from ``images.tsv``; Twitter-GMNER shares the pictures of the two sets beside it."""
    tables = [folder / "images.tsv"]
    if (folder / "boxes.jsonl").is_file():
        tables += [folder.parent / other / "images.tsv" for other in ("twitter2015", "twitter2017")]
    for table in tables:
        if table.is_file():
            lines = (line for _, line in numbered_lines(table))
            for row in csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE):
                if not row.get("image_id") or not row.get("file"):
                    raise DataFault(str(table), "a row without image_id and file", "columns: image_id, split, file")
                yield row["image_id"], table.parent / row["file"]


def _count_boxes(rows: Rows, path: Path) -> None:
    """Notes ``boxes`` and ``pictures_with_boxes``: what a grounded task could use."""
    if not path.is_file():
        return
    for _, row in json_rows(path, _Boxes, rows.faults):
        rows.notes["boxes"] += len(row.objects)
        rows.notes["pictures_with_boxes"] += bool(row.objects)
