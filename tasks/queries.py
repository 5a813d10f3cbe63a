"""The questions of a completion set: each triple asked for its tail and for its head, made only when looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, overload

from .completion import Answer, Example
from .graph import KnowledgeGraph


class Queries(Sequence[Example]):
    """A split of a graph as examples, two a triple: the tail asked, then the head.

    Nothing is made before it is indexed or iterated, so that half a million questions cost no memory; a slice is
    again `Queries`. The ids count a split's triples from 1: ``test-17-tail``, ``test-17-head``.

    Args:
        graph: the graph to be completed.
        split: which of its splits is asked.
        numbers: which of its questions, as numbers from 0; None for all of them.
    """

    def __init__(self, graph: KnowledgeGraph, split: str, numbers: range | None = None) -> None:
        self.graph, self.split = graph, split
        self.numbers = range(2 * len(graph.triples[split])) if numbers is None else numbers

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, at: int) -> Example: ...

    @overload
    def __getitem__(self, at: slice) -> Queries: ...

    def __getitem__(self, at: int | slice) -> Example | Queries:
        if isinstance(at, slice):
            return Queries(self.graph, self.split, self.numbers[at])
        row, second = divmod(self.numbers[at], 2)
        head, relation, tail = self.graph.triples[self.split][row].tolist()
        given, missing = (tail, head) if second else (head, tail)
        asked: Literal["head", "tail"] = "head" if second else "tail"
        return Example(
            id=f"{self.split}-{row + 1}-{asked}",
            given=self.graph.entities[given],
            relation=self.graph.relations[relation],
            asked=asked,
            gold=Answer(ranking=(self.graph.entities[missing].id,)),
        )
