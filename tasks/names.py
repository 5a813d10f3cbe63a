"""How alike names are: which entities of a graph are called somewhat like this."""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import fuzz, process, utils

from .graph import Entity, KnowledgeGraph

#: So many names are compared with all others at a time: 64 x 100,000 scores are 26 MB.
BLOCK = 64

Scores = NDArray[np.float32]


def plain(name: str) -> str:
    """A name to be compared: small letters without accents, words with single blanks; marks where it has no words."""
    letters = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    return " ".join(utils.default_process(letters).split()) or name.strip()


def written(entity: Entity) -> list[str]:
    """How an entity is written: name and aliases, and the name without what stands in brackets behind it."""
    return [entity.name, re.sub(r"\s*\([^()]*\)\s*\Z", "", entity.name), *entity.aliases]


class Names:
    """The names and aliases of a graph's entities, to be compared with others."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        names = [_distinct(written(entity)) or [""] for entity in graph.entities]
        self._names = list(chain.from_iterable(names))
        self._starts = np.cumsum([0, *map(len, names)])[:-1]
        places: dict[str, list[int]] = defaultdict(list)
        for at, name in enumerate(self._names):
            for word in set(name.split()):
                places[word].append(at)
        self._places = {word: np.array(found) for word, found in places.items()}

    def alike(self, queries: Sequence[Sequence[str]]) -> Iterator[Scores]:
        """For each query (an entity's several names), how alike each entity of the graph is: 0 to 1, the same name 1.

        The mean of two shares, for the best pair of names: of the query's words, each weighted by its rarity (inverse
        document frequency), those that the name has; and of the letters of both, those that they share in order
        (`rapidfuzz.fuzz.ratio`).
        """
        for at in range(0, len(queries), BLOCK):
            block = [_distinct(names) for names in queries[at : at + BLOCK]]
            letters = iter(
                process.cdist(list(chain.from_iterable(block)), self._names, scorer=fuzz.ratio, dtype=np.float32)
            )
            for names in block:
                best = np.zeros(len(self._starts), np.float32)
                for name, ratio in zip(names, letters, strict=False):
                    scores = (self._words(name) + ratio / 100) / 2
                    np.maximum(best, np.maximum.reduceat(scores, self._starts), out=best)
                yield best

    def _words(self, query: str) -> Scores:
        """For each name, the share of the query's words that it has, by weight."""
        shared = np.zeros(len(self._names), np.float32)
        total = 0.0
        for word in dict.fromkeys(query.split()):
            places = self._places.get(word, np.empty(0, np.int64))
            weight = np.log((1 + len(self._names)) / (1 + len(places))) + 1
            shared[places] += weight
            total += weight
        return shared / np.float32(total)


def _distinct(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name for name in map(plain, names) if name))
