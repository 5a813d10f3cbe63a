"""A run's report: its scores as sections, and those as JSON, Markdown and one self-contained HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import attributes, markdown
from .bootstrap import Interval
from .cards import card
from .page import html_report
from .score import Scores
from .sections import Bar, Bars, Card, Curve, Examples, Line, Mark, Point, Section, Table, Text

__all__ = [
    "Bar",
    "Bars",
    "Card",
    "Curve",
    "Examples",
    "Line",
    "Mark",
    "Point",
    "Section",
    "Table",
    "Text",
    "card",
    "html_report",
    "markdown_report",
    "percent",
    "score_sections",
    "write_report",
]

#: More types than this are shown in a folded table without bars.
_TYPES_SHOWN = 12


def percent(interval: Interval) -> str:
    """A metric with its interval, for a table's cell: ``84.93 (82.10 – 87.60)``."""
    return f"{100 * interval.value:.2f} ({100 * interval.low:.2f} – {100 * interval.high:.2f})"


def score_sections(scores: Scores, title: str = "") -> list[Section]:
    """What there is to show of one system's scores: metrics, types, counts and the protocol."""
    before = f"{title}: " if title else ""
    metrics = [(_words(name), *_cells(metric)) for name, metric in scores.metrics.items()]
    bars = tuple(Bar(_words(name), *metric) for name, metric in scores.metrics.items())
    by_type = tuple(
        (row.name, f"{100 * row.precision:.2f}", f"{100 * row.recall:.2f}", *_cells(row.f1), *_sizes(row))
        for row in scores.by_type
    )
    sections: list[Section] = [
        Bars(f"{before}metrics", bars, "Per cent, with percentile bootstrap 95 % intervals over examples."),
        Table(f"{before}metrics in figures", ("metric", "value", "95 % interval"), tuple(metrics)),
    ]
    if 0 < len(scores.by_type) <= _TYPES_SHOWN:
        rows = tuple(Bar(f"{row.name} ({row.gold:,})", *row.f1) for row in scores.by_type)
        sections.append(Bars(f"{before}F1 by type", rows, "In brackets: gold items of the type."))
    header = ("type", "precision", "recall", "F1", "95 % interval", "gold", "predicted")
    if by_type:
        sections.append(Table(f"{before}by type", header, by_type, folded=len(by_type) > _TYPES_SHOWN))
    counts = tuple((_words(name), f"{count:,}") for name, count in scores.counts.items())
    sections.append(Table(f"{before}counts", ("what", "how many"), counts))
    return [*sections, Text(f"{before}protocol", scores.protocol)]


def markdown_report(title: str, sections: Sequence[Section]) -> str:
    """The report as Markdown: plots become tables, pictures are left to the HTML page."""
    parts = [f"# {title}\n"]
    for section in sections:
        parts.append(f"## {section.title}\n\n{_markdown(section)}")
        if not isinstance(section, Text) and section.note:
            parts.append(f"{section.note}\n")
    return "\n".join(parts)


def write_report(
    folder: str | Path,
    title: str,
    sections: Sequence[Section],
    scores: Mapping[str, Scores],
    about: Mapping[str, Any],
) -> dict[str, Path]:
    """Write ``report.json`` (``about`` and the scores by system), ``report.md`` and ``report.html``.

    Returns the three paths by suffix. The folder is made if it is not there; a report in it is replaced.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    data = {"title": title, **about, "scores": {name: s.as_dict() for name, s in scores.items()}}
    texts = {
        "json": json.dumps(data, indent=1, ensure_ascii=False) + "\n",
        "md": markdown_report(title, sections),
        "html": html_report(title, sections),
    }
    paths = {suffix: folder / f"report.{suffix}" for suffix in texts}
    for suffix, path in paths.items():
        path.write_text(texts[suffix], encoding="utf-8")
    return paths


def _markdown(section: Section) -> str:
    if isinstance(section, Text):
        return f"```text\n{section.body}\n```\n" if section.code else f"{section.body}\n"
    if isinstance(section, Table):
        return markdown.table(section.header, section.rows)
    if isinstance(section, Bars):
        rows = [
            (" / ".join(filter(None, (b.label, b.group))), f"{100 * b.value:.2f}", _ends(b.low, b.high))
            for b in section.bars
        ]
        return markdown.table(("", "per cent", "95 % interval"), rows)
    if isinstance(section, Curve):
        points = [(name, point) for name, line in section.lines.items() for point in line]
        cells = [(name, f"{p.x:,g}", f"{100 * p.value:.2f}", _ends(p.low, p.high)) for name, p in points]
        return markdown.table(("", section.x_label, "per cent", "95 % interval"), cells)
    return "\n".join(map(_markdown_card, section.cards))


def _markdown_card(shown: Card) -> str:
    rows = []
    for line in shown.lines:
        marks = ", ".join(f"{line.text[m.start : m.end]} [{m.label}]" for m in line.marks)
        rows.append((line.label, f"{line.text} ({marks})" if marks else line.text, line.verdict))
    return markdown.table((shown.title, "", ""), rows)


def _words(name: str) -> str:
    """A metric's or count's name in prose; the five cases stay as the field writes them."""
    if name in (*attributes.CASES, "mrr"):
        return name.upper()
    return name.replace("_", " ").replace("f1", "F1").replace("hits@", "Hits@")


def _cells(interval: Interval) -> tuple[str, str]:
    return f"{100 * interval.value:.2f}", _ends(interval.low, interval.high)


def _ends(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{100 * low:.2f} – {100 * high:.2f}"


def _sizes(row: Any) -> tuple[str, str]:
    return f"{row.gold:,}", f"{row.predicted:,}"
