"""A data set as its reader leaves it."""

from __future__ import annotations

import re
from collections import Counter
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

    def refused(self, most: int = 10) -> list[str]:
        """The faults in a few lines: the first ``most``, then how many there are of each problem.

        Faults are of one problem if they differ in numbers and quoted words alone.
        """
        lines = [f"refused: {fault}" for fault in self.faults[:most]]
        if len(self.faults) > most:
            kinds = Counter(_QUOTED.sub("…", fault.problem) for fault in self.faults)
            lines.append(f"refused: {len(self.faults):,} rows in all")
            lines += [f"  {number:,}: {kind}" for kind, number in kinds.most_common()]
            lines.append("`magister datasets show DATA --json` names them all")
        return lines


#: What is another in each fault of one problem: words in quotes (as `repr` writes them) and numbers.
_QUOTED = re.compile(r"""(?<!\w)'(?:[^'\\]|\\.)*'(?!\w)|"(?:[^"\\]|\\.)*"|\d+""")
