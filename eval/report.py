"""A run's report: its scores as sections, and those as JSON, Markdown and one self-contained HTML page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ..tasks import attributes as attributes_task
from ..tasks import ner as ner_task
from . import attributes, markdown
from .bootstrap import Interval
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
    if len(scores.by_type) <= _TYPES_SHOWN:
        rows = tuple(Bar(f"{row.name} ({row.gold:,})", *row.f1) for row in scores.by_type)
        sections.append(Bars(f"{before}F1 by type", rows, "In brackets: gold items of the type."))
    header = ("type", "precision", "recall", "F1", "95 % interval", "gold", "predicted")
    sections.append(Table(f"{before}by type", header, by_type, folded=len(by_type) > _TYPES_SHOWN))
    counts = tuple((_words(name), f"{count:,}") for name, count in scores.counts.items())
    sections.append(Table(f"{before}counts", ("what", "how many"), counts))
    return [*sections, Text(f"{before}protocol", scores.protocol)]


def card(task_key: Literal["ner", "attributes"], example: Any, answers: Mapping[str, Any]) -> Card:
    """An example with its gold (if it has any) and what each system answered (None: unparseable), judged."""
    said = {**({"gold": example.gold} if example.gold else {}), **answers}
    lines = [Line("text", example.text)] if task_key == "attributes" else []
    make = _ner_line if task_key == "ner" else _attributes_line
    lines += [make(who, example, answer) for who, answer in said.items()]
    return Card(example.id, tuple(lines), example.images)


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


def _ner_line(who: str, example: ner_task.Example, answer: ner_task.Answer | None) -> Line:
    if answer is None:
        return Line(who, "no answer that could be parsed", verdict="wrong")
    placed = [e for e in answer.entities if e.start is not None and e.end is not None]
    lost = [f"{e.text} [{e.type}]" for e in answer.entities if e.start is None]
    text = example.text + (f"  (not in the text: {', '.join(lost)})" if lost else "")
    marks = tuple(Mark(e.start or 0, e.end or 0, e.type) for e in placed)
    verdict: Literal["", "right", "wrong"] = ""
    if example.gold and who != "gold":
        gold = {(e.start, e.end, e.type) for e in example.gold.entities}
        right = {(e.start, e.end, e.type) for e in placed} == gold and not lost
        verdict = "right" if right else "wrong"
    return Line(who, text, marks, verdict)


def _attributes_line(who: str, example: attributes_task.Example, answer: attributes_task.Answer | None) -> Line:
    if answer is None:
        return Line(who, "no answer that could be parsed", verdict="wrong")
    said = "; ".join(f"{name}: {' / '.join(attributes.values(answer, name)) or '–'}" for name in answer.values)
    verdict: Literal["", "right", "wrong"] = ""
    if example.gold and who != "gold":
        slots = [(attributes.values(example.gold, n), attributes.values(answer, n)) for n in example.gold.values]
        right = all(attributes.case(gold, given) in ("vc", "nn") for gold, given in slots)
        verdict = "right" if right else "wrong"
    return Line(who, said or "nothing", verdict=verdict)


def _words(name: str) -> str:
    """A metric's or count's name in prose; the five cases stay as the field writes them."""
    return name.upper() if name in attributes.CASES else name.replace("_", " ").replace("f1", "F1")


def _cells(interval: Interval) -> tuple[str, str]:
    return f"{100 * interval.value:.2f}", _ends(interval.low, interval.high)


def _ends(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{100 * low:.2f} – {100 * high:.2f}"


def _sizes(row: Any) -> tuple[str, str]:
    return f"{row.gold:,}", f"{row.predicted:,}"
