"""Long pages: cut at line and sentence ends into overlapping windows, each asked by itself, the answers merged."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from .ground import Found

#: Characters of a page that a teacher is asked about at once (some 2,000 tokens of English, fewer of other scripts).
WINDOW = 8_000
#: How much of a window is seen again by the next one, so that what straddles a cut is whole in one of them.
OVERLAP = 0.1

#: What ends a unit, the best places to cut first: a line, a sentence, a word.
_ENDS = (re.compile(r"\n+"), re.compile(r"(?<=[.!?;])\s+|(?<=[。！？；])"), re.compile(r"\s+"))


def windows(text: str, limit: int | None) -> list[tuple[int, int]]:
    """Characters ``(start, end)`` of windows that together are the whole text, each of at most ``limit`` characters.

    A window begins and ends at the end of a line, else of a sentence, else of a word, else anywhere.
    """
    if limit is None or len(text) <= limit:
        return [(0, len(text))]
    if limit < 2:
        raise ValueError(f"a window of {limit} characters is too small")
    units = _units(text, 0, len(text), limit, 0)
    found: list[tuple[int, int]] = []
    first = 0
    while True:
        last = first
        while last < len(units) and units[last][1] - units[first][0] <= limit:
            last += 1
        found.append((units[first][0], units[last - 1][1]))
        if last == len(units):
            return found
        # Back for what the next window is to see again, but not so far that the next unit would not fit.
        back, end = last, units[last][1]
        seen = min(OVERLAP * limit, limit - (end - units[last][0]))
        while back - 1 > first and units[last][0] - units[back - 1][0] <= seen:
            back -= 1
        first = back


def _units(text: str, start: int, end: int, limit: int, level: int) -> list[tuple[int, int]]:
    """Pieces of ``text[start:end]`` in order, each with the blanks behind it. Lines or sentences longer than the
    overlap are cut further, so that windows can overlap at all; words only where they must be."""
    if level == len(_ENDS):
        return [(at, min(at + limit, end)) for at in range(start, end, limit)]
    pieces: list[tuple[int, int]] = []
    at = start
    for match in (*_ENDS[level].finditer(text, start, end), None):
        stop = end if match is None else match.end()
        if stop > at:
            longest = limit if level == len(_ENDS) - 1 else OVERLAP * limit
            longer = stop - at > longest
            pieces += _units(text, at, stop, limit, level + 1) if longer else [(at, stop)]
        at = stop
    return pieces


@dataclass(frozen=True)
class Merged:
    """An attribute over all windows of a page.

    Attributes:
        found: its values.
        confidence: of the window that gave them (of several, the least); where all say absent, the least of theirs.
        conflict: whether windows gave different values of an attribute that has one.
    """

    found: tuple[Found, ...]
    confidence: float | None
    conflict: bool = False


def merge(answers: Sequence[tuple[Sequence[Found], float | None]], many: bool) -> Merged:
    """What the windows said of one attribute, in reading order, with its confidence, as one answer.

    One value: the first that stands in the product, else the first. Several (``many``): all of them, each once,
    in reading order.
    """
    if len(answers) == 1:
        return Merged(tuple(answers[0][0]), answers[0][1])
    stated = [(found, sure) for found, sure in answers if found]
    if not stated:
        return Merged((), _least([sure for _, sure in answers]))
    if many:
        values: dict[str, Found] = {}
        for one in sorted((one for found, _ in stated for one in found), key=_place):
            values.setdefault(_folded(one.value), one)
        return Merged(tuple(values.values()), _least([sure for _, sure in stated]))
    found, sure = next((pair for pair in stated if pair[0][0].where is not None), stated[0])
    conflict = len({_folded(values[0].value) for values, _ in stated}) > 1
    return Merged(tuple(found), sure, conflict)


def _place(found: Found) -> tuple[bool, int]:
    """By its place in the page; what stands elsewhere or nowhere goes last, in the order of the windows."""
    return found.at is None, found.at or 0


def _least(sure: Sequence[float | None]) -> float | None:
    known = [one for one in sure if one is not None]
    return min(known) if len(known) == len(sure) else None


def _folded(value: str) -> str:
    return " ".join(value.casefold().split())
