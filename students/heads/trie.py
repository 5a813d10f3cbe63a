"""The answers that may be written, as a trie of sub-tokens: options of a closed list, spans of a text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..collate import Text


class Trie:
    """Sub-token sequences and the answer that each stands for; of two answers of one sequence the first is kept.

    Args:
        end: the sub-token behind every answer.
    """

    def __init__(self, end: int) -> None:
        self.end = end
        self._root: dict[int, Any] = {}

    def add(self, ids: Iterable[int], answer: str) -> None:
        """An answer by its sub-tokens."""
        node = self._root
        for token in ids:
            node = node.setdefault(token, {})
        node.setdefault(self.end, answer)

    def add_spans(self, text: Text, written: str, longest: int) -> None:
        """Every span of a text's units of at most ``longest`` sub-tokens, answered as it is ``written`` there."""
        for first in range(len(text.pieces)):
            node, length = self._root, 0
            for last in range(first, len(text.pieces)):
                length += len(text.pieces[last])
                if length > longest:
                    break
                for token in text.pieces[last]:
                    node = node.setdefault(token, {})
                node.setdefault(self.end, written[text.spans[first][0] : text.spans[last][1]])

    def legal(self, ids: Iterable[int]) -> list[int]:
        """The sub-tokens that may follow; none where the sequence is no beginning of an answer."""
        return list(self._at(ids))

    def answer(self, ids: Iterable[int]) -> str:
        """The answer that a finished sequence (without its end) stands for; a `KeyError` if it is none."""
        found: str = self._at(ids)[self.end]
        return found

    def words(self) -> list[int]:
        """Every sub-token in it and the end, each once, sorted."""
        found, waiting = {self.end}, [self._root]
        while waiting:
            node = waiting.pop()
            found.update(node)
            waiting += [child for token, child in node.items() if token != self.end]
        return sorted(found)

    def _at(self, ids: Iterable[int]) -> dict[int, Any]:
        node = self._root
        for token in ids:
            node = node.get(token, {}) if token != self.end else {}
        return node
