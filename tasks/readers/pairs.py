"""What the alignment readers share: the links between two graphs as examples, in an order that tells nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

from .. import alignment
from ..dataset import Dataset
from ..facts import Facts
from ..graph import KnowledgeGraph
from ..images import Image
from ..task import DataFault
from .rows import numbered_lines, where

#: The seed of every order and draw here, see `shuffled`.
SEED = 0
#: The share of the seed pairs that is held out to choose models by (5 to 10 % is the field's advice).
VALID = 0.1


def shuffled(keys: Iterable[str], salt: str) -> list[str]:
    """The keys in the order of the SHA-256 of seed, salt and key: the same everywhere, whatever order they come in."""
    return sorted(keys, key=lambda key: hashlib.sha256(f"{SEED}\t{salt}\t{key}".encode()).digest())


def fields(path: Path, count: int) -> Iterable[tuple[str, ...]]:
    """The fields of each line between tabs; a `DataFault` where there are not ``count`` of them."""
    for number, line in numbered_lines(path):
        found = tuple(line.split("\t"))
        if len(found) != count:
            raise DataFault(where(path, number), f"{len(found)} fields between tabs, not {count}")
        yield found


def unnamed(file: str | Path) -> Image:
    """A picture whose file name tells the answer: its bytes go along, its name does not."""
    return Image.of_bytes(Path(file).read_bytes())


class Links(Sequence[alignment.Example]):
    """The examples of one split, made as they are looked at: ``test-0``, ``test-1``, ...; a slice is `Links` again."""

    def __init__(self, split: str, links: Sequence[tuple[str, str]], left: Facts, numbers: range | None = None) -> None:
        self.split, self.links, self.left = split, links, left
        self.numbers = range(len(links)) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, at: int) -> alignment.Example: ...

    @overload
    def __getitem__(self, at: slice) -> Links: ...

    def __getitem__(self, at: int | slice) -> alignment.Example | Links:
        if isinstance(at, slice):
            return Links(self.split, self.links, self.left, self.numbers[at])
        number = self.numbers[at]
        left, right = self.links[number]
        entity = self.left.graph.number[left]
        return alignment.Example(
            id=f"{self.split}-{number}",
            entity=self.left.graph.entities[entity],
            facts=self.left.of(entity),
            gold=alignment.Answer(ranking=(right,)),
        )


def aligned(
    name: str,
    left: KnowledgeGraph,
    right: KnowledgeGraph,
    links: Iterable[tuple[str, str]],
    share: float,
    schema: alignment.Schema,
    faults: Sequence[DataFault] = (),
) -> Dataset:
    """The links as a data set: ``share`` of them are seed pairs, the rest is ``test``, as the papers have it.

    There is no official split, so the links are drawn by `shuffled`. `VALID` of the seed pairs is the split ``valid``,
    so that no model is chosen on test; the others are ``train``. Papers train on both: so may a final run.

    Raises:
        DataFault: a link names an entity that its graph does not have.
    """
    ends = dict(zip(map("\t".join, links := list(links)), links, strict=True))
    for one, two in ends.values():
        if one not in left.number or two not in right.number:
            raise DataFault(name, f"the link {one} - {two} names an entity that is not in its graph")
    drawn = [ends[key] for key in shuffled(ends, "links")]
    seeds = round(share * len(drawn))
    valid = round(VALID * seeds)
    parts = {"train": drawn[valid:seeds], "valid": drawn[:valid], "test": drawn[seeds:]}
    facts = Facts(left)
    notes = {f"{graph.name}.{key}": count for graph in (left, right) for key, count in graph.notes.items()}
    if shared := len(drawn) - len({two for _, two in drawn}):
        notes["links_to_an_entity_linked_before"] = shared
    splits = {split: Links(split, part, facts) for split, part in parts.items()}
    return Dataset(name, "alignment", schema, splits, tuple(faults), notes, (left, right))
