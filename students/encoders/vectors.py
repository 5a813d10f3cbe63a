"""Frozen vectors of words: out of a text file in GloVe's format, or out of a packaged model's input embeddings."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...tasks.task import DataFault
from . import text

#: So many bad lines of a file are named in its fault.
_NAMED = 3


class WordVectors(nn.Module):
    """A frozen table whose rows' mean is the vector of a word; a word without rows has zeros.

    Rows of a file are words; they are kept with the student. Rows of a model are sub-tokens, so every word has a
    vector; they are read from the model again. The table is scaled to a standard deviation of 1, for vectors of
    different sources differ tenfold in size.
    """

    table: Tensor

    def __init__(self, table: Tensor, words: Sequence[str] = (), sub_tokens: text.SubTokens | None = None) -> None:
        super().__init__()
        self._numbers = {word: number for number, word in enumerate(words)}
        self._sub_tokens = sub_tokens
        self.register_buffer("table", table, persistent=sub_tokens is None)

    @classmethod
    def of_model(cls, name: str) -> WordVectors:
        """The input embeddings of a model (`models.names.resolve`)."""
        encoder = text.load(name)
        weights: Any = encoder.embeddings.weight
        return cls(_scaled(weights.detach().float().clone()), sub_tokens=encoder.sub_tokens)

    @classmethod
    def of_words(cls, words: Sequence[str], width: int) -> WordVectors:
        """Room for the vectors of some words; `fill` reads them, or a kept student's weights do."""
        return cls(torch.zeros(len(words), width), words)

    def fill(self, path: str) -> None:
        """Read the vectors of the words out of a file that has them all (`words_of`)."""
        found = dict(_lines(path, self._numbers.keys(), 0))
        self.table.copy_(_scaled(torch.tensor([found[word] for word in self._numbers])))

    @property
    def width(self) -> int:
        """Numbers a vector has."""
        return self.table.shape[1]

    def rows(self, word: str) -> list[int]:
        """The rows of a word: of a file that of the word as written, else that of its lower case."""
        if self._sub_tokens is not None:
            return [piece.id for piece in self._sub_tokens.word(word, blank_before=True)]
        number = self._numbers.get(word, self._numbers.get(word.lower()))
        return [] if number is None else [number]

    def forward(self, rows: Tensor, mask: Tensor) -> Tensor:
        """Vectors ``[U, d]`` of words with the rows ``[U, P]``."""
        found = self.table[rows] * mask[..., None]
        return found.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)


def words_of(path: str, wanted: Collection[str], first: int) -> tuple[list[str], int]:
    """The words whose vectors are to be kept, and the vectors' width: those wanted that a file has, as written or in
    lower case, and its first ones.

    Raises a `DataFault` that names the lines that are no vectors, or a file that cannot be read or has none of the
    words.
    """
    wanted = {form for word in wanted for form in (word, word.lower())}
    widths = {word: len(vector) for word, vector in _lines(path, wanted, first)}
    if wanted.isdisjoint(widths):
        raise DataFault(path, "has no vector of any word of the training examples", "give vectors of their language")
    return list(widths), next(iter(widths.values()))


def _lines(path: str, wanted: Collection[str], first: int) -> Iterator[tuple[str, list[float]]]:
    """Words with their vectors, each once. A first line of two numbers (word2vec's) is passed over."""
    width, bad = 0, []
    seen: set[str] = set()
    try:
        with Path(path).open(encoding="utf-8", errors="replace", newline="\n") as file:
            for number, line in enumerate(file, 1):
                parts = line.rstrip("\r\n ").split(" ")
                if number == 1 and len(parts) == 2 and all(part.isdigit() for part in parts):
                    continue
                width = width or len(parts) - 1
                word = " ".join(parts[:-width] if width else ())  # some words have blanks inside
                if word in seen or not (word in wanted or len(seen) < first or not word):
                    continue
                vector = _numbers(parts[-width:] if word else ())
                if vector is None:
                    bad.append(number)
                else:
                    seen.add(word)
                    yield word, vector
    except OSError as error:
        raise DataFault(path, f"cannot be read: {error.strerror}", "name a text file of word vectors") from None
    if bad:
        more = f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else ""
        raise DataFault(
            f"{path}, line {', '.join(map(str, bad[:_NAMED]))}{more}",
            f"not a word and {width} numbers",
            "mend these lines, or take them out",
        )


def _numbers(parts: Sequence[str]) -> list[float] | None:
    try:
        found = [float(part) for part in parts]
    except ValueError:
        return None
    return found if found and all(abs(x) < float("inf") for x in found) else None


def _scaled(table: Tensor) -> Tensor:
    return table / table.std().clamp(min=1e-8)
