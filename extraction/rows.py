"""From what was answered to a product's row: grounded, merged over windows, normalised, counted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..tasks.attributes import Answer, Attribute, Example, Schema
from .counts import Counts
from .ground import Found, Source, ground
from .product import WHOLE_PAGE, Page
from .windows import Merged, merge

Row = dict[str, Any]
#: Gives a value's canonical form, or None.
Normalise = Callable[[Attribute, str], Any]


@dataclass(frozen=True)
class Outcome:
    """What came back for one example: a product, or a window of its page.

    Attributes:
        seen: the example as it was shown: for a teacher that cannot see, with its pictures' words in the context.
        answer: the answer, or None, with its ``fault`` by name and the ``detail``.
        confidence: of each attribute's answer, 0 to 1, absent ones too; None where it is not known.
    """

    seen: Example
    answer: Answer | None
    confidence: Mapping[str, float | None] = field(default_factory=dict)
    fault: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Window:
    """A part of a page to be asked about: its example, and the place of its text in the page."""

    example: Example
    start: int = 0


def failed(name: str, fault: str, detail: str, counts: Counts) -> Row:
    """The row of a product that has no answer."""
    counts.products += 1
    counts.failed[fault] += 1
    return {"id": name, "values": None, "found": None, "fault": f"{fault}: {detail}" if detail else fault}


@dataclass(frozen=True)
class Rows:
    """Makes rows of answers.

    Attributes:
        schema: what was asked.
        strict: whether values that ought to be copied and stand nowhere are left out.
        normalise: gives canonical forms, or None.
        counts: filled on the way.
    """

    schema: Schema
    strict: bool
    normalise: Normalise | None
    counts: Counts

    def row(self, name: str, page: Page, windows: Sequence[Window], outcomes: Sequence[Outcome]) -> Row:
        """The row of a product. If one of its windows has no answer, it has none: what that window holds is unknown."""
        for number, outcome in enumerate(outcomes, 1):
            if outcome.answer is None:
                which = f"window {number} of {len(windows)}: " if len(windows) > 1 else ""
                return failed(name, outcome.fault, f"{which}{outcome.detail}", self.counts)
        self.counts.products += 1
        self.counts.done += 1
        if len(windows) > 1:
            self.counts.cut += 1
            self.counts.windows += len(windows)
        first = windows[0].example
        merged = self._merged(first, page, windows, outcomes)
        values: dict[str, Any] = {}
        found: dict[str, Any] = {}
        for attribute, one in merged:
            values[attribute.name] = _plain([f.value for f in one.found], attribute.many)
            found[attribute.name] = {"values": [f.as_json() for f in one.found], "confidence": one.confidence}
        return {"id": name, "values": values, "found": found, "fault": None}

    def _merged(
        self, first: Example, page: Page, windows: Sequence[Window], outcomes: Sequence[Outcome]
    ) -> Iterator[tuple[Attribute, Merged]]:
        """Each attribute asked with its values over all windows."""
        sources = [_sources(outcome.seen) for outcome in outcomes]
        for name in first.asked:
            attribute = self.schema.attribute(name, first.category)
            answers = [
                (self._grounded(attribute, outcome, window, texts, page), outcome.confidence.get(name))
                for window, outcome, texts in zip(windows, outcomes, sources, strict=True)
            ]
            one = merge(answers, attribute.many)
            self.counts.conflicts += one.conflict
            kept = [self._finished(attribute, found, one.confidence) for found in one.found]
            if self.strict and attribute.copied:
                grounded = [found for found in kept if found.where is not None]
                self.counts.dropped += len(kept) - len(grounded)
                if kept and not grounded:
                    one = Merged((), None)  # its confidence was in the value
                kept = grounded
            self.counts.values += len(kept)
            self.counts.absent += not kept
            yield attribute, Merged(tuple(kept), one.confidence)

    def _grounded(
        self, attribute: Attribute, outcome: Outcome, window: Window, sources: Mapping[str, Source], page: Page
    ) -> list[Found]:
        """The values of one window with their places in the product."""
        assert outcome.answer is not None
        found = []
        for value in outcome.answer.values.get(attribute.name, ()):
            one = ground(value, attribute.copied, sources)
            if one.where == WHOLE_PAGE and one.start is not None and one.end is not None:
                at = window.start + one.start
                where, start, end = page.locate(at, window.start + one.end)
                one = one.replace(where=where, start=start, end=end, at=at)
            found.append(one)
        return found

    def _finished(self, attribute: Attribute, found: Found, confidence: float | None) -> Found:
        counts = self.counts
        if attribute.copied:
            counts.ungrounded += found.where is None
            counts.rewritten += found.how in ("folded", "nearly")
            counts.nearly += found.how == "nearly"
        normalised = self.normalise(attribute, found.value) if self.normalise is not None else None
        return found.replace(confidence=confidence, normalised=normalised)


def _sources(seen: Example) -> dict[str, Source]:
    """The texts that a value may stand in: the page's, the pictures', the others."""
    texts = {name: text for name, text in seen.context.items() if text}
    ordered = {WHOLE_PAGE: seen.text, **{n: texts[n] for n in sorted(texts, key=lambda n: n != "ocr")}}
    return {name: Source(text) for name, text in ordered.items()}


def _plain(values: Sequence[str], many: bool) -> str | list[str] | None:
    """Absent is null; an attribute of many values has a list."""
    if not values:
        return None
    return list(values) if many or len(values) > 1 else values[0]
