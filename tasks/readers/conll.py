"""Posts in CoNLL form with IMGID lines (the Twitter sets' own format), and strict IOB2 spans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..images import Image
from ..ner import Answer, Entity
from ..task import DataFault
from .rows import Rows, numbered_lines, where

OPENING = "IMGID:"


@dataclass
class Post:
    """One post of a file: where it begins, its image id, its words with their tags, its first fault."""

    place: str
    image_id: str
    words: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    fault: DataFault | None = None

    def take(self, place: str, line: str) -> None:
        """Read one ``word<TAB>tag`` line; the first line that is none becomes the post's fault."""
        word, tab, tag = line.partition("\t")
        if self.fault is None and (not tab or not word.strip(" ") or not tag or "\t" in tag):
            self.fault = DataFault(place, f"not a 'word<TAB>tag' line: {line[:60]!r}")
        self.words.append(word)
        self.tags.append(tag)


def posts(path: Path) -> Iterator[Post]:
    """The posts of a file. The last one needs no blank line after it (several loaders lose it)."""
    post: Post | None = None
    for number, line in numbered_lines(path):
        place = where(path, number)
        if line.startswith(OPENING):
            if post:
                yield post
            post = Post(place, line.removeprefix(OPENING).strip())
        elif line.strip(" \t"):
            if post is None:
                post = Post(place, "", fault=DataFault(place, "words without an IMGID line before them"))
            post.take(place, line)
        elif post:
            yield post
            post = None
    if post:
        yield post


def spans(words: Sequence[str], tags: Sequence[str], labels: Sequence[str]) -> tuple[tuple[Entity, ...], int]:
    """The entities that strict IOB2 tags mark in the words joined by blanks, and the number of orphan chunks.

    An entity opens with ``B-`` and goes on with ``I-`` of the same type. A run of ``I-`` tags that nothing
    opened is an orphan chunk: no entity (the published counts of Twitter-2015 leave them out).

    Raises:
        ValueError: a tag that is not ``O``, ``B-label`` or ``I-label`` with one of the labels; too few tags.
    """
    if len(words) != len(tags):
        raise ValueError(f"{len(words)} words but {len(tags)} tags")
    found: list[Entity] = []
    first: int | None = None  # character offset where the open entity begins
    orphans, at, previous = 0, 0, "O"
    text = " ".join(words)
    ends = []
    for word in words:
        ends.append(at + len(word))
        at += len(word) + 1
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, label = tag.partition("-")
        if tag != "O" and (prefix not in ("B", "I") or label not in labels):
            raise ValueError(f"unknown tag {tag!r}")
        if prefix == "I" and previous[2:] == label:
            continue  # the chunk goes on, be it an entity or an orphan
        if first is not None:
            end = ends[i - 1]
            found.append(Entity(text=text[first:end], type=previous[2:], start=first, end=end))
        first = ends[i] - len(words[i]) if prefix == "B" else None
        orphans += prefix == "I"
        previous = tag
    return tuple(found), orphans


def add_posts(rows: Rows, split: str, path: Path, captions: Mapping[str, str], pictures: Mapping[str, Path]) -> None:
    """Read a split's file into ``rows``: example id = image id, ``caption`` and picture where there is one.

    Notes, by split: ``orphan_i_tags`` (chunks), ``without_caption``, ``with_picture``.
    """
    rows.splits.setdefault(split, [])
    for post in posts(path):
        with rows.row(post.place):
            if post.fault:
                raise post.fault
            if not post.image_id:
                raise DataFault(post.place, "an IMGID line without an id")
            if not post.words:
                raise DataFault(post.place, f"the post {post.image_id} has no words")
            try:
                entities, orphans = spans(post.words, post.tags, rows.schema.labels)
            except ValueError as error:
                remedy = f"the labels are {', '.join(rows.schema.labels)}"
                raise DataFault(post.place, f"post {post.image_id}: {error}", remedy) from None
            caption, picture = captions.get(post.image_id), pictures.get(post.image_id)
            rows.add(
                split,
                post.place,
                id=post.image_id,
                text=" ".join(post.words),
                words=tuple(post.words),
                images=(Image(source=str(picture), example=post.image_id),) if picture else (),
                context={"caption": caption} if caption else {},
                gold=Answer(entities=entities),
            )
            rows.notes[f"orphan_i_tags.{split}"] += orphans
            rows.notes[f"without_caption.{split}"] += caption is None
            rows.notes[f"with_picture.{split}"] += picture is not None
