"""A text as one vector: the mean of its states in a frozen encoder (Reimers and Gurevych, EMNLP 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..collate import pad
from ..heads.ranking import mean
from . import text as text_encoder


class Sentences:
    """Mean states of texts, special tokens included, as sentence encoders (MiniLM) are trained.

    Args:
        name: a packaged model's short name, a path or a hub name.
        batch_size: texts encoded at once, in order of length.

    Attributes:
        width: of a vector.
        truncated: how many texts were longer than the encoder reads, so far; only their beginnings count.
    """

    def __init__(self, name: str = "minilm", batch_size: int = 32) -> None:
        self._encoder = text_encoder.load(name).eval().requires_grad_(False)
        self._size, self.width, self.truncated = batch_size, self._encoder.hidden, 0

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Vectors ``[N, width]``."""
        rows = [self._row(text) for text in texts]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        found = torch.zeros(len(rows), self.width)
        for start in range(0, len(order), self._size):
            at = order[start : start + self._size]
            ids = pad([rows[i] for i in at], self._encoder.sub_tokens.pad)
            mask = pad([[1] * len(rows[i]) for i in at])
            found[at] = mean(self._encoder(ids, mask), mask)
        return found

    def _row(self, text: str) -> list[int]:
        sub = self._encoder.sub_tokens
        first = [] if sub.first is None else [sub.first]
        room, pieces = self._encoder.limit - len(first) - 1, sub.text(text)
        self.truncated += len(pieces) > room
        return [*first, *pieces[:room], sub.separator]
