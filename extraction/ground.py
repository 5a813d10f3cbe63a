"""Where a value stands: characters of the page, or of a text beside it, by exact, folded or nearly equal writing.

A value that ought to be copied and stands in another writing is replaced by the source's own; one that stands nowhere
is kept, and marked. Offsets count characters (code points), ``end`` is exclusive.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

from rapidfuzz import process
from rapidfuzz.distance import Indel

from ..prompts.align import PLAIN

#: Nearly equal: rapidfuzz's normalised indel similarity of the folded writings is at least this.
NEARLY = 0.9
#: Values of more words are not sought in other writings.
MOST_WORDS = 40
#: A shorter value is not sought within a word: some word has its letters in any case.
WITHIN = 4

#: How a value was found: as written; but for case, blanks, marks and Unicode forms; nearly; or not.
How = Literal["exact", "folded", "nearly", "nowhere"]


@dataclass(frozen=True)
class Found:
    """A value and where it stands.

    Attributes:
        value: as the source has it, if it stands there.
        start, end: characters of the text called ``where``; None with it.
        how: how it was found.
        at: the place in the page, for the order of reading.
        confidence, normalised: see the row.
    """

    value: str
    start: int | None = None
    end: int | None = None
    where: str | None = None
    how: How = "nowhere"
    at: int | None = None
    confidence: float | None = None
    normalised: Any = None

    def as_json(self) -> dict[str, Any]:
        """As a row has it."""
        return {
            "value": self.value,
            "start": self.start,
            "end": self.end,
            "where": self.where,
            "confidence": self.confidence,
            "normalised": self.normalised,
        }

    def replace(self, **changes: Any) -> Found:
        """The same with other fields."""
        return replace(self, **changes)


def ground(value: str, copied: bool, sources: Mapping[str, Source]) -> Found:
    """The value with its place in the first source that has it as written, else folded, else nearly.

    A value that need not be ``copied`` is sought as written and folded, as whole words, and never changed.
    """
    for name, source in sources.items():
        if place := source.exact(value):
            return Found(source.text[place[0] : place[1]] if copied else value, *place, name, "exact")
    for name, source in sources.items():
        if place := source.folded(value, within=copied):
            there = source.text[place[0] : place[1]]
            return Found(there if copied else value, *place, name, "exact" if there == value else "folded")
    for name, source in sources.items() if copied else ():
        if place := source.nearly(value):
            return Found(source.text[place[0] : place[1]], *place, name, "nearly")
    return Found(value)


class Source:
    """A text in which values are sought. Earlier places go before later ones, whole words before parts of words."""

    def __init__(self, text: str) -> None:
        self.text = text

    def exact(self, value: str) -> tuple[int, int] | None:
        """The first place of the value as it is written, as whole words."""
        value = value.strip()
        at = self.text.find(value) if value else -1
        while at >= 0:
            place = at, at + len(value)
            if not any(map(self._cuts, place)):
                return place
            at = self.text.find(value, at + 1)
        return None

    def folded(self, value: str, within: bool = False) -> tuple[int, int] | None:
        """The first place but for case, blanks, typographic marks and Unicode forms.

        With ``within`` a place within a word will do where there is no other, but none within a number.
        """
        wanted, _ = fold(value)
        if not wanted:
            return None
        last_resort = None
        written, _ = self._folded
        at = written.find(wanted)
        while at >= 0:
            place = self._characters(at, at + len(wanted))
            if place is not None:
                cuts = [cut for cut in map(self._cuts, place) if cut]
                if not cuts:
                    return place
                if within and last_resort is None and len(wanted) >= WITHIN and "number" not in cuts:
                    last_resort = place
            at = written.find(wanted, at + 1)
        return last_resort

    def nearly(self, value: str) -> tuple[int, int] | None:
        """The most similar run of words, if it is `NEARLY` equal and has the same digits.

        Runs of as many words as the value has, one more or one less. Numbers that differ in a digit are other
        numbers, however alike they look.
        """
        wanted, count = fold(value)[0], len(value.split())
        if not wanted or count > MOST_WORDS:
            return None
        runs: list[tuple[int, int]] = []
        for size in (count, count + 1, count - 1):
            if size > 0:
                runs += [(a[0], b[1]) for a, b in zip(self._words, self._words[size - 1 :], strict=False)]
        writings = [self._written(*run) for run in runs]
        alike = process.extract(
            wanted, writings, scorer=Indel.normalized_similarity, score_cutoff=NEARLY, limit=len(writings)
        )
        return next((runs[n] for _, _, n in alike if _digits(writings[n]) == _digits(wanted)), None)

    @cached_property
    def _folded(self) -> tuple[str, list[int]]:
        return fold(self.text)

    @cached_property
    def _words(self) -> list[tuple[int, int]]:
        """Runs of characters that are no blanks, without the punctuation round them."""
        words = []
        for run in re.finditer(r"\S+", self.text):
            if word := re.search(r"\w(.*\w)?", run[0]):
                words.append((run.start() + word.start(), run.start() + word.end()))
        return words

    def _written(self, start: int, end: int) -> str:
        """The folded writing of some characters."""
        written, places = self._folded
        return written[bisect_left(places, start) : bisect_left(places, end)]

    def _characters(self, start: int, end: int) -> tuple[int, int] | None:
        """The source's characters of folded ones; None where they begin or end within one (``ﬁ`` is f and i)."""
        _, places = self._folded
        torn = (start and places[start - 1] == places[start]) or (end < len(places) and places[end] == places[end - 1])
        return None if torn else (places[start], places[end - 1] + 1)

    def _cuts(self, at: int) -> str:
        """What would be cut in two before a character: a ``word``, a ``number``, or nothing.

        Scripts without case write words without blanks between them: there is nothing to be cut.
        """
        before, behind = self.text[at - 1 : at], self.text[at : at + 1]
        if before.isdigit() and behind.isdigit():
            return "number"
        if before in (".", ",") and self.text[at - 2 : at - 1].isdigit() and behind.isdigit():
            return "number"
        if behind in (".", ",") and before.isdigit() and self.text[at + 1 : at + 2].isdigit():
            return "number"
        return "word" if _has_case(before) and _has_case(behind) else ""


def fold(text: str) -> tuple[str, list[int]]:
    """A text without blanks, in small letters, plain marks and compatibility form (NFKD), and for each of its
    characters the place of the one it comes from."""
    folded: list[str] = []
    places: list[int] = []
    for at, character in enumerate(text.translate(PLAIN)):
        plain = character if character.isascii() else unicodedata.normalize("NFKD", character)
        for one in plain.casefold():
            if not one.isspace():
                folded.append(one)
                places.append(at)
    return "".join(folded), places


def _has_case(character: str) -> bool:
    return character.lower() != character.upper()


def _digits(text: str) -> list[str]:
    return re.findall(r"\d+", text)
