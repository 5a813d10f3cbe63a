"""Triples about an entity in words: what a teacher or a text encoder reads of a graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .graph import KnowledgeGraph


class Facts:
    """The surroundings of each entity of a graph, by default those of its split ``train``.

    Args:
        graph: the graph.
        splits: the splits whose triples are told; a fact must not be one that is asked.
    """

    def __init__(self, graph: KnowledgeGraph, splits: Sequence[str] = ("train",)) -> None:
        self.graph = graph
        known = graph.all_triples([split for split in splits if split in graph.triples])
        self._triples = np.unique(known, axis=0) if len(known) else known
        heads, tails = self._triples[:, 0], self._triples[:, 2]
        rows = np.arange(len(self._triples))
        loops = heads == tails
        ends = np.concatenate([heads, tails[~loops]])
        order = np.argsort(ends, kind="stable")
        self._rows = np.concatenate([rows, rows[~loops]])[order]
        self._starts = np.searchsorted(ends[order], np.arange(len(graph.entities) + 1))

    @property
    def degrees(self) -> np.ndarray:
        """The number of triples about each entity, shape (entities,)."""
        return np.diff(self._starts)

    def about(self, number: int) -> np.ndarray:
        """The triples that hold the entity of that number, each once, shape (triples, 3)."""
        return self._triples[self._rows[self._starts[number] : self._starts[number + 1]]]

    def neighbours(self, number: int) -> np.ndarray:
        """The numbers of the entities beside it, each once, in rising order; not itself."""
        ends = np.unique(self.about(number)[:, ::2])
        return ends[ends != number]

    def of(self, number: int, limit: int = 8) -> tuple[str, ...]:
        """At most ``limit`` triples about an entity, each as ``head | relation | tail``.

        The better known the other entity (the more triples hold it), the earlier a fact comes, since it is the likelier
        to have a counterpart elsewhere; but each relation gives one fact, in each direction, before any gives two.
        """
        triples = self.about(number)
        if not len(triples):
            return ()
        is_head = triples[:, 0] == number
        other = np.where(is_head, triples[:, 2], triples[:, 0])
        kind = 2 * triples[:, 1] + is_head
        order = np.lexsort((other, kind, -self.degrees[other]))
        turn = np.zeros(len(order), np.int64)
        seen: dict[int, int] = {}
        for at, one in enumerate(kind[order].tolist()):
            turn[at] = seen[one] = seen.get(one, -1) + 1
        chosen = order[np.argsort(turn, kind="stable")[:limit]]
        return tuple(self._words(*triples[row].tolist()) for row in chosen)

    def _words(self, head: int, relation: int, tail: int) -> str:
        entities, named = self.graph.entities, self.graph.relations[relation]
        return f"{entities[head].title} | {named.title or named.name} | {entities[tail].title}"
