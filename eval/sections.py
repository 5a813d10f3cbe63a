"""What a report is made of: plain kinds of section, rendered as Markdown by `report`, as HTML by `page`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..tasks.images import Image


@dataclass(frozen=True)
class Text:
    """Prose (blank lines part the paragraphs), or, with ``code``, text to be shown as it is."""

    title: str
    body: str
    code: bool = False


@dataclass(frozen=True)
class Table:
    """A table of ready-made cells. ``folded``: shown closed in HTML, for long ones."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""
    folded: bool = False


@dataclass(frozen=True)
class Bar:
    """A fraction (0 to 1) with its interval, if it has one. Bars of one ``group`` share a colour."""

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    group: str = ""


@dataclass(frozen=True)
class Bars:
    """Horizontal bars from zero, in per cent, with error bars."""

    title: str
    bars: tuple[Bar, ...]
    note: str = ""


@dataclass(frozen=True)
class Point:
    """A fraction (0 to 1) at a position x, with its interval."""

    x: float
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """Lines over a common axis, in per cent, with bands for their intervals: learning curves."""

    title: str
    lines: dict[str, tuple[Point, ...]]
    x_label: str
    note: str = ""


@dataclass(frozen=True)
class Mark:
    """Characters ``start`` to ``end`` (exclusive) of a line's text, with the label to show there."""

    start: int
    end: int
    label: str


@dataclass(frozen=True)
class Line:
    """One line of an example: who says it, what, and whether it is right (empty: not judged)."""

    label: str
    text: str
    marks: tuple[Mark, ...] = ()
    verdict: Literal["", "right", "wrong"] = ""


@dataclass(frozen=True)
class Card:
    """One example: its pictures and its lines."""

    title: str
    lines: tuple[Line, ...]
    images: tuple[Image, ...] = ()


@dataclass(frozen=True)
class Examples:
    """Examples shown with their pictures, made small and inlined."""

    title: str
    cards: tuple[Card, ...]
    note: str = ""


Section = Text | Table | Bars | Curve | Examples
