"""MNRE: tweets with a pair of mentions and the relation between them, captions of their pictures and a few pictures."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from ..dataset import Dataset
from ..images import Image
from ..ner import Entity
from ..record import Record
from ..relations import Answer, RelationType, Schema
from ..task import DataFault
from .rows import Rows, json_file, numbered_lines, where
from .tables import picture_files

#: A line of the source is below a thousand characters; what Python parses has a limit here.
LONGEST_LINE = 20_000
#: The source's name of each split.
FILES = {"train": "train", "valid": "val", "test": "test"}

_TYPES = {"per": "person", "org": "organisation", "loc": "location", "misc": "other"}
# Label, title, guideline. After the training pairs: which mention stands first, and what the annotators let pass.
_RELATIONS = (
    ("/per/per/parent", "parent", "The head is father, mother or a parent figure of the tail; the tail is the child."),
    ("/per/per/siblings", "sibling", "The two are brothers or sisters, twins among them, also in a story or in jest."),
    ("/per/per/couple", "couple", "The two are married, engaged or lovers, or are shown as a pair, also in a film."),
    (
        "/per/per/neighbor",
        "neighbour",
        "Two people or characters who live, stand or appear side by side, with no nearer tie such as couple or peer.",
    ),
    (
        "/per/per/peer",
        "peer",
        "Two people on one level: colleagues, team mates, rivals, fellow artists or actors, people who are listed, "
        "compared or pictured together. The usual tie between two people where none of the narrower ones holds.",
    ),
    (
        "/per/per/charges",
        "in charge of",
        "The head stands above the tail: its boss, coach or employer, or the one who names or dismisses it.",
    ),
    ("/per/per/alumi", "fellow student", "The two know each other from the same school, college or training."),
    (
        "/per/per/alternate_names",
        "same person",
        "Both mentions mean one person: full and short name, nickname, handle or hashtag, or an actor and the role.",
    ),
    (
        "/per/org/member_of",
        "member of",
        "The person (head) plays or works for, leads, owns, represents or belongs to the organisation (tail): a team, "
        "band, company, party, school, authority or medium.",
    ),
    (
        "/per/loc/place_of_residence",
        "lives in",
        "The person (head) lives, works, holds office or stays in the place (tail).",
    ),
    ("/per/loc/place_of_birth", "born in", "The person (head) was born in the place (tail) or comes from there."),
    (
        "/org/org/alternate_names",
        "same organisation",
        "Both mentions mean one organisation: abbreviation, nickname, hashtag, handle or a former name.",
    ),
    (
        "/org/org/subsidiary",
        "part of organisation",
        "The first organisation belongs to the second: a unit, team, brand, label, show or member of it.",
    ),
    (
        "/org/loc/locate_at",
        "located at",
        "The organisation (head) has its seat in the place (tail), comes from there, or plays or acts there.",
    ),
    (
        "/loc/loc/contain",
        "contains",
        "The second place lies inside the first: the head is the larger one (country, state, city), the tail the "
        "smaller one (city, district, building).",
    ),
    (
        "/per/misc/present_in",
        "present in",
        "The person or character (head) takes part in or appears in the event, film, series, game, song, work or "
        "competition (tail), or made it.",
    ),
    (
        "/per/misc/awarded",
        "awarded",
        "The person (head) has won, holds or is up for the award, title, cup or medal (tail).",
    ),
    ("/per/misc/race", "race", "The tail names the ethnic group or people that the person (head) belongs to."),
    ("/per/misc/religion", "religion", "The tail names the faith, or a part of it, that the person (head) stands for."),
    (
        "/per/misc/nationality",
        "nationality",
        "The tail is a word for the nation or country that the person (head) belongs to, such as 'British'.",
    ),
    (
        "/misc/misc/part_of",
        "part of",
        "The first thing is a part, episode, character, product or member of the second (tail).",
    ),
    (
        "/misc/loc/held_on",
        "held at",
        "The event, show, product, work or happening (head) takes place, is released or is found in the place (tail).",
    ),
)

#: The 22 relations of MNRE, with guidelines of our own. ``None`` is the label of a pair without one.
SCHEMA = Schema(
    relations=tuple(
        RelationType(
            name=name,
            title=title,
            guideline=guideline,
            head=_TYPES[name.split("/")[1]],
            tail=_TYPES[name.split("/")[2]],
        )
        for name, title, guideline in _RELATIONS
    )
)


class _Mention(Record):
    name: str
    pos: tuple[int, int]


class _Row(Record):
    token: tuple[str, ...]
    h: _Mention
    t: _Mention
    img_id: str
    relation: str


class _Caption(Record):
    img_id: str
    text: str


def recognise(folder: Path) -> str | None:
    """``mnre`` if its training file is there."""
    return "mnre" if (folder / "mnre_train.txt").is_file() else None


def read(folder: Path, name: str) -> Dataset:
    """Read the pairs, one example each: the id is the split and the line, since a tweet stands there for every pair.

    The label's path (``/per/org/member_of``) names the types of both mentions, but only of pairs that have a
    relation. A mention's type is therefore left empty: as an input it would tell ``None`` from the rest. The order of
    the two mentions does so in part (a tail before its head is nearly always related); it belongs to the question.

    Context: ``caption`` (BLIP-2) and ``long_caption`` (LLaVA-NeXT). Notes, by split: ``without_caption``,
    ``without_long_caption``, ``with_picture`` (examples), ``repeated`` (a pair that an earlier line has).
    """
    rows = Rows(name, "relations", SCHEMA)
    beside = Beside(rows, folder)
    seen: set[tuple[Any, ...]] = set()
    for split, called in FILES.items():
        path = folder / f"mnre_{called}.txt"
        if path.is_file():
            rows.splits[split] = []
            for number, row in literal_rows(rows, path, _Row):
                with rows.row(where(path, number)):
                    _add(rows, split, path, number, row, beside)
                    key = (row.img_id, row.token, row.h.pos, row.t.pos)
                    rows.notes[f"repeated.{split}"] += key in seen
                    seen.add(key)
    if not rows.splits:
        raise DataFault(str(folder), "no mnre_train.txt, mnre_val.txt or mnre_test.txt", "name the set's own folder")
    return rows.dataset()


def _add(rows: Rows, split: str, path: Path, number: int, row: _Row, beside: Beside) -> None:
    pair = mention(row.token, *row.h.pos), mention(row.token, *row.t.pos)
    for found, said in zip(pair, (row.h, row.t), strict=True):
        if found is None or found.text != said.name:
            problem = f"{said.name!r} is not the words at {list(said.pos)}"
            raise DataFault(where(path, number), problem, "positions count words from 0, the end is exclusive")
    if row.h.pos == row.t.pos:
        raise DataFault(where(path, number), f"head and tail are the same mention {row.h.name!r}")
    id = f"{split}-{number}"
    fields = beside.of(row.img_id, id)
    rows.add(
        split,
        where(path, number),
        id=id,
        text=" ".join(row.token),
        words=row.token,
        pair=pair,
        gold=Answer(relation=row.relation),
        **fields,
    )
    beside.count(split, fields)


def mention(words: tuple[str, ...], first: int, end: int, type: str = "") -> Entity | None:
    """The words ``first`` to ``end`` (exclusive) as a span of the text that blanks join; None if they are not there."""
    if not 0 <= first < end <= len(words):
        return None
    start = sum(len(word) + 1 for word in words[:first])
    text = " ".join(words[first:end])
    return Entity(text=text, type=type, start=start, end=start + len(text))


class Beside:
    """What lies beside the tweets of MNRE: captions for every picture and 43 real pictures, by image id."""

    def __init__(self, rows: Rows, folder: Path) -> None:
        self._notes = rows.notes
        self._short = dict(_blip2(rows, folder))
        self._long = dict(_llava(rows, folder))
        table = folder / "images.tsv"
        self._pictures = dict(picture_files(table, "img_id", rows.faults, rows.notes))

    def of(self, image_id: str, example: str) -> dict[str, Any]:
        """The fields ``images`` and ``context`` of an example."""
        texts = {"caption": self._short.get(image_id), "long_caption": self._long.get(image_id.removesuffix(".jpg"))}
        picture = self._pictures.get(image_id)
        return {
            "images": (Image(source=picture, example=example),) if picture else (),
            "context": {key: text for key, text in texts.items() if text},
        }

    def count(self, split: str, fields: dict[str, Any]) -> None:
        """The notes on what an example has, after it was taken."""
        self._notes[f"without_caption.{split}"] += "caption" not in fields["context"]
        self._notes[f"without_long_caption.{split}"] += "long_caption" not in fields["context"]
        self._notes[f"with_picture.{split}"] += bool(fields["images"])


def _blip2(rows: Rows, folder: Path) -> Iterator[tuple[str, str]]:
    for called in FILES.values():
        path = folder / f"captions_blip2_{called}.txt"
        for _, row in literal_rows(rows, path, _Caption) if path.is_file() else ():
            yield row.img_id, row.text.strip()


def _llava(rows: Rows, folder: Path) -> Iterator[tuple[str, str]]:
    """Image id without ``.jpg`` and caption, of one JSON object a split."""
    for called in FILES.values():
        path = folder / f"captions_llavanext_{called}.json"
        if path.is_file():
            captions = json_file(path)
            if not isinstance(captions, dict):
                raise DataFault(str(path), "not a JSON object of captions by image id")
            for image_id, text in captions.items():
                if isinstance(text, str):
                    yield image_id, text.strip()
                else:
                    rows.faults.append(DataFault(str(path), f"the caption of {image_id} is no text"))


T = TypeVar("T", bound=Record)


def literal_rows(rows: Rows, path: Path, record: type[T]) -> Iterator[tuple[int, T]]:
    """Each line, a Python literal, as a record with its number; other lines are named among the faults."""
    for number, line in numbered_lines(path):
        if line.strip():
            row = None
            with rows.row(where(path, number)):
                row = record.model_validate(_literal(where(path, number), line))
            if row is not None:
                yield number, row


def _literal(place: str, line: str) -> Any:
    if len(line) > LONGEST_LINE:
        raise DataFault(place, f"{len(line):,} characters; a line has at most {LONGEST_LINE:,}")
    try:
        return ast.literal_eval(line)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise DataFault(place, f"not a Python literal: {error or type(error).__name__}") from None
