"""Which worked examples a teacher is shown: of the same category first, nearest by embedding, never the answer itself.

The order of ExtractGPT's demonstrations (Brinkmann, Shraga, Bizer): the most similar stands last, next to the question.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..tasks.attributes import Example
from ..tasks.task import DataFault

#: Texts as rows of vectors ``[n, d]``.
Embed = Callable[[Sequence[str]], NDArray[np.float32]]

#: A demonstration that shares so much of its words with the example would give its answer away (Jaccard, 0 to 1).
TOO_SIMILAR = 0.8
#: So many demonstrations are to show an absent attribute.
ABSENT = 2


class Nearest:
    """Picks demonstrations out of a pool; give it as ``demonstrations`` to `ask` and `extract`.

    Args:
        pool: examples with gold.
        embed: texts to vectors; MiniLM if not given. The pool's are computed once, here.
        shots: how many are picked.

    Attributes:
        counts: what was passed over where it would have been picked: ``itself``, ``near_duplicates`` of the example,
            ``repeated_texts``; and ``fewer_than_asked``: examples with fewer demonstrations than ``shots``.
    """

    def __init__(self, pool: Sequence[Example], embed: Embed | None = None, shots: int = 10) -> None:
        for example in pool:
            if example.gold is None:
                raise DataFault(
                    f"example {example.id}", "a demonstration needs its gold answer", "take a labelled split"
                )
        self.pool, self.shots, self.counts = tuple(pool), shots, Counter[str]()
        self._embed = embed or MiniLM()
        self._vectors = _unit(self._embed([example.text for example in self.pool])) if self.pool else None
        self._words = [_words(example.text) for example in self.pool]
        self._absent = [_has_absent(example) for example in self.pool]

    def __call__(self, example: Example) -> list[Example]:
        """The demonstrations of an example, the most similar last."""
        chosen = self._chosen(example)
        self.counts["fewer_than_asked"] += len(chosen) < self.shots
        return [self.pool[place] for place in reversed(chosen)]

    def _chosen(self, example: Example) -> list[int]:
        """Places in the pool, the best first: the nearest, the last of them given up for such as show an absent one."""
        chosen: list[int] = []
        absent: list[int] = []
        texts: set[frozenset[str]] = set()
        wanted = min(ABSENT, self.shots - 1)
        ranked = self._ranked(example)
        for at, place in enumerate(ranked):
            full = len(chosen) == self.shots
            if full and (len(absent) >= wanted or not any(self._absent[p] for p in ranked[at:])):
                break
            if full and not self._absent[place]:
                continue
            if not self._may_be_shown(place, example, texts):
                continue
            if full:
                chosen.remove(next(p for p in reversed(chosen) if not self._absent[p]))
            chosen.append(place)
            texts.add(self._words[place])
            if self._absent[place]:
                absent.append(place)
        return chosen

    def _ranked(self, example: Example) -> list[int]:
        """Places of the same category by similarity, then the others; equals in the pool's order."""
        if self._vectors is None:
            return []
        likeness = self._vectors @ _unit(self._embed([example.text]))[0]
        other = np.array([bool(example.category) and e.category != example.category for e in self.pool])
        return [int(place) for place in np.lexsort((-likeness, other))]

    def _may_be_shown(self, place: int, example: Example, texts: set[frozenset[str]]) -> bool:
        words = self._words[place]
        if self.pool[place].id == example.id and self.pool[place].text == example.text:
            reason = "itself"
        elif jaccard(words, _words(example.text)) >= TOO_SIMILAR:
            reason = "near_duplicates"
        elif words in texts:
            reason = "repeated_texts"
        else:
            return True
        self.counts[reason] += 1
        return False


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """The share of common words among all words of two texts; 1 where both have none."""
    return len(one & other) / len(one | other) if one | other else 1.0


def _words(text: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", text.casefold()))


def _has_absent(example: Example) -> bool:
    values = example.gold.values if example.gold is not None else {}
    return any(not values.get(name) for name in example.asked)


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


class MiniLM:
    """Mean states of texts, ``[n, 384]`` for MiniLM itself (`encoders.sentence`); loaded when a text is first embedded.

    Args:
        name: an encoder's name (`models.names.resolve`) or path.
        batch: so many texts are read together, in order of length.
    """

    def __init__(self, name: str = "minilm", batch: int = 32) -> None:
        self.name, self.batch = name, batch

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One row a text."""
        vectors: NDArray[np.float32] = self._sentences(texts).numpy()
        return vectors

    @property
    def truncated(self) -> int:
        """Texts longer than the encoder reads; only their beginnings count."""
        return int(self._sentences.truncated)

    @cached_property
    def _sentences(self) -> Any:
        from ..students.encoders.sentence import Sentences

        return Sentences(self.name, self.batch)
