"""A data set as its reader leaves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .graph import KnowledgeGraph
from .task import DataFault


@dataclass(frozen=True)
class Dataset:
    """A data set as a reader leaves it: examples by split, the schema, and what could not be read.

    Attributes:
        name: the reader's name for it, for example ``twitter2017``.
        task: the task's key.
        schema: the label set with its guidelines.
        splits: split name (``train``, ``valid``, ``test``) to its examples, in file order; a large one may make them as
            they are asked for.
        faults: the rows that were refused, by name; in = examples + faults.
        notes: counted remarks (``orphan_i_tags``: 53), printed beside the counts.
        graphs: what the examples are about: one graph to be completed, two to be aligned, a knowledge base.
    """

    name: str
    task: str
    schema: Any
    splits: Mapping[str, Sequence[Any]]
    faults: tuple[DataFault, ...] = ()
    notes: dict[str, int] = field(default_factory=dict)
    graphs: tuple[KnowledgeGraph, ...] = ()

    def split(self, name: str) -> Sequence[Any]:
        """The examples of one split; a `DataFault` that lists the splits there are, if it has none of that name."""
        if name not in self.splits:
            raise DataFault(self.name, f"no split {name!r}", f"there are: {', '.join(self.splits)}")
        return self.splits[name]
