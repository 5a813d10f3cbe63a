"""Where a mention stands in a text: as written, else without regard to case, curly marks and blanks."""

from __future__ import annotations

import re

Span = tuple[int, int]

#: Typographic marks and their plain forms, one character each, so that offsets stay.
PLAIN = str.maketrans("‘’‚ʼ`´“”„«»–—−‐‑\u00a0\u202f", "''''''\"\"\"\"\"-----  ")


class Aligner:
    """Finds mentions in one text; a mention that comes again takes the next occurrence."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._plain = text.translate(PLAIN)
        self._taken: list[Span] = []

    def find(self, mention: str) -> Span | None:
        """The mention's next place, or None if the text does not hold it (any more).

        Whole words go before parts of words (``art`` is not sought in ``startup`` while ``ART`` stands
        alone), exact before inexact, places that overlap no earlier mention before those inside one.
        """
        mention = mention.strip()
        if not mention or len("".join(mention.split())) > len(self.text):
            return None
        places = list(dict.fromkeys(place for whole in (True, False) for place in self._places(mention, whole)))
        free = [p for p in places if all(p[1] <= t[0] or t[1] <= p[0] for t in self._taken)]
        nested = [p for p in places if p not in self._taken]
        for place in free or nested:
            self._taken.append(place)
            return place
        return None

    def holds(self, mention: str) -> Span | None:
        """The mention's first place, whether or not it is taken."""
        mention = mention.strip()
        if not mention or len("".join(mention.split())) > len(self.text):
            return None
        return next((p for whole in (True, False) for p in self._places(mention, whole)), None)

    def _places(self, mention: str, whole: bool) -> list[Span]:
        """All places, the best kind of match first; ``whole``: with no letter or digit at either end."""
        plain = mention.translate(PLAIN)
        loose = r"\s*".join(re.escape(c) for c in plain if not c.isspace())
        found: list[Span] = []
        for pattern, text, flags in (
            (re.escape(mention), self.text, 0),
            (re.escape(plain), self._plain, re.IGNORECASE),
            (loose, self._plain, re.IGNORECASE),
        ):
            places = [m.span() for m in re.finditer(pattern, text, flags)]
            found += [p for p in places if p[0] < p[1] and (not whole or self._is_whole(p))]
        return found

    def _is_whole(self, place: Span) -> bool:
        start, end = place
        before, after = self.text[start - 1 : start], self.text[end : end + 1]
        return not (
            (before.isalnum() and self.text[start].isalnum()) or (after.isalnum() and self.text[end - 1].isalnum())
        )
