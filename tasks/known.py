"""Known answers: every entity that a triple names for a question, which filtered ranking takes out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from .completion import Example
from .graph import KnowledgeGraph

Numbers = NDArray[np.int64]


class KnownAnswers:
    """All true tails of ``(head, relation, ?)`` and all true heads of ``(?, relation, tail)``.

    Two sorted arrays a direction (four numbers a triple), no dictionary of sets. "Filtered" is Bordes et al. 2013,
    "Translating Embeddings for Modeling Multi-relational Data", section 4.2; a test is filtered by all splits.

    Args:
        graph: where the triples are.
        splits: the splits whose triples are known; default: all.
    """

    def __init__(self, graph: KnowledgeGraph, splits: Sequence[str] | None = None) -> None:
        self.graph = graph
        triples = graph.all_triples(splits)
        self._tails = _grouped(triples[:, 0] * len(graph.relations) + triples[:, 1], triples[:, 2])
        self._heads = _grouped(triples[:, 2] * len(graph.relations) + triples[:, 1], triples[:, 0])

    def tails(self, head: int, relation: int) -> Numbers:
        """The entities (ascending numbers) known as tails; a view, empty where there is none."""
        return _group(self._tails, head * len(self.graph.relations) + relation)

    def heads(self, relation: int, tail: int) -> Numbers:
        """The entities (ascending numbers) known as heads; a view, empty where there is none."""
        return _group(self._heads, tail * len(self.graph.relations) + relation)

    def of(self, example: Example) -> Numbers:
        """The numbers of the entities known to be right for an example, its gold among them where it is known.

        Raises:
            KeyError: its entity or its relation is not in the graph.
        """
        given, relation = self.graph.number[example.given.id], self.graph.relation_number[example.relation.name]
        return self.tails(given, relation) if example.asked == "tail" else self.heads(relation, given)

    def ids(self, examples: Iterable[Example]) -> dict[str, frozenset[str]]:
        """Example id to the ids of the entities known to be right; equal questions share one set."""
        sets: dict[tuple[str, str, str], frozenset[str]] = {}
        found = {}
        for example in examples:
            question = (example.given.id, example.relation.name, example.asked)
            if question not in sets:
                sets[question] = frozenset(self.graph.entities[number].id for number in self.of(example))
            found[example.id] = sets[question]
        return found


def _grouped(keys: Numbers, values: Numbers) -> tuple[Numbers, Numbers]:
    """Keys and values without repeated pairs, sorted by key, then value."""
    pairs = np.unique(np.stack([keys, values], axis=1), axis=0)
    return pairs[:, 0].copy(), pairs[:, 1].copy()


def _group(grouped: tuple[Numbers, Numbers], key: int) -> Numbers:
    keys, values = grouped
    first, last = np.searchsorted(keys, [key, key + 1])
    return values[first:last]
