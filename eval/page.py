"""A report as one HTML page that needs nothing else: inline CSS, inline SVG, small pictures, no script."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from html import escape
from pathlib import Path

from ..tasks.images import Image, ImageFault
from .plots import bars_svg, curve_svg
from .sections import Bars, Card, Curve, Line, Section, Table, Text

#: Longer side of an inlined picture, in pixels.
THUMBNAIL = 240

_CSS = """
:root { color-scheme: light dark; --paper: #fdfdfc; --ink: #1d2126; --soft: #5d6570; --rule: #dfe2e6;
  --tint: #f2f4f6; --good: #1a7f4b; --bad: #b3372b; --c0: #2f6db5; --c1: #d98324; --c2: #2a9076; --c3:
  #a4508b;
  --c4: #7a7f35; --c5: #6b6f78; }
@media (prefers-color-scheme: dark) { :root { --paper: #16191d; --ink: #e6e8ea; --soft: #a0a8b2; --rule:
  #343a41;
  --tint: #1f2429; --good: #5cc890; --bad: #f08b7d; --c0: #6ea8e8; --c1: #f0aa5a; --c2: #5cc4a8; --c3:
  #d58bc0;
  --c4: #b9be6c; --c5: #a3a8b1; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 3rem 1.25rem 5rem; max-width: 54rem; background: var(--paper); color:
  var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 2rem; letter-spacing: -0.01em; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 0.75rem; padding-top: 1.1rem; border-top: 1px solid var(--rule); }
p { margin: 0 0 0.8rem; max-width: 44rem; }
.note { color: var(--soft); font-size: 0.875rem; margin-top: 0.5rem; }
pre { background: var(--tint); border-radius: 6px; padding: 0.9rem 1rem; overflow-x: auto; font-size:
  0.85rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.38rem 1.4rem 0.38rem 0; border-bottom: 1px solid var(--rule);
  vertical-align: top; }
th { color: var(--soft); font-weight: 600; white-space: nowrap; }
.number { text-align: right; white-space: nowrap; }
summary { cursor: pointer; color: var(--soft); margin-bottom: 0.5rem; }
svg { display: block; width: 100%; height: auto; font: 13px system-ui, "DejaVu Sans", sans-serif; }
svg text { fill: var(--ink); } svg .tick { fill: var(--soft); font-size: 12px; } svg .value { font-weight:
  600; }
svg .middle { text-anchor: middle; } svg .end { text-anchor: end; }
svg .grid { stroke: var(--rule); } svg .whisker { stroke: var(--ink); stroke-width: 1.5; }
.s0 { --c: var(--c0); } .s1 { --c: var(--c1); } .s2 { --c: var(--c2); } .s3 { --c: var(--c3); } .s4 { --c:
  var(--c4); }
.s5 { --c: var(--c5); }
svg rect, svg circle { fill: var(--c); } svg .line { fill: none; stroke: var(--c); stroke-width: 2.5; }
svg .band { fill: var(--c); opacity: 0.16; }
.card { display: flex; flex-wrap: wrap; gap: 0.75rem 1.25rem; padding: 1.1rem 0; border-bottom: 1px solid
  var(--rule); }
.card:last-of-type { border-bottom: 0; }
.pictures { flex: 0 0 9rem; display: flex; flex-direction: column; gap: 0.5rem; }
.pictures img { width: 9rem; height: auto; border-radius: 6px; display: block; }
.lines { flex: 1 1 20rem; min-width: 0; overflow-wrap: anywhere; }
.lines h3 { font-size: 0.8rem; color: var(--soft); font-weight: 600; margin: 0 0 0.4rem; }
.line-of { display: grid; grid-template-columns: 8.5rem 1fr; gap: 0 1rem; margin-bottom: 0.35rem; }
.who { color: var(--soft); font-size: 0.875rem; padding-top: 0.1rem; }
.who:empty + span { color: var(--soft); font-size: 0.875rem; }
.right .who::after { content: " ✓"; color: var(--good); font-weight: 700; }
.wrong .who::after { content: " ✗"; color: var(--bad); font-weight: 700; }
mark { background: color-mix(in srgb, var(--c0) 18%, transparent); color: inherit; border-radius: 4px;
  padding: 0.05rem 0.25rem; }
mark small { color: var(--c0); font-weight: 700; margin-left: 0.35rem; font-size: 0.7rem; }
@media (max-width: 40rem) { .line-of { grid-template-columns: 1fr; } }
"""


def html_report(title: str, sections: Sequence[Section]) -> str:
    """The page as a string. All text is escaped; a picture that cannot be read is named in its place."""
    body = "\n".join(f"<section><h2>{escape(s.title)}</h2>\n{_section(s)}</section>" for s in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style></head>\n"
        f"<body><h1>{escape(title)}</h1>\n{body}\n</body></html>\n"
    )


def _section(section: Section) -> str:
    if isinstance(section, Text):
        if section.code:
            return f"<pre>{escape(section.body)}</pre>"
        paragraphs = filter(None, (p.strip() for p in section.body.split("\n\n")))
        return "".join(f"<p>{escape(p)}</p>" for p in paragraphs)
    if isinstance(section, Table):
        return _table(section) + _note(section.note)
    if isinstance(section, Bars):
        return bars_svg(section) + _note(section.note)
    if isinstance(section, Curve):
        return curve_svg(section) + _note(section.note)
    return "".join(map(_card, section.cards)) + _note(section.note)


def _note(note: str) -> str:
    return f'<p class="note">{escape(note)}</p>' if note else ""


def _table(section: Table) -> str:
    columns = list(zip(*section.rows, strict=True)) or [()] * len(section.header)
    kinds = [' class="number"' if cells and all(map(_numeric, cells)) else "" for cells in columns]
    head = "".join(f"<th{kind}>{escape(c)}</th>" for c, kind in zip(section.header, kinds, strict=True))
    rows = "".join(
        "<tr>" + "".join(f"<td{kind}>{escape(c)}</td>" for c, kind in zip(row, kinds, strict=True)) + "</tr>\n"
        for row in section.rows
    )
    table = f'<div class="wide"><table><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>'
    if section.folded:
        return f"<details><summary>{len(section.rows):,} rows</summary>{table}</details>"
    return table


def _numeric(cell: str) -> bool:
    return re.fullmatch(r"[-+–−]?[\d.,]*( ?[±–(].*)?\s*%?", cell) is not None


def _card(card: Card) -> str:
    pictures = "".join(map(_picture, card.images))
    lines = "".join(
        f'<div class="line-of {line.verdict}"><span class="who">{escape(line.label)}</span>'
        f"<span>{_marked(line)}</span></div>"
        for line in card.lines
    )
    aside = f'<div class="pictures">{pictures}</div>' if pictures else ""
    return f'<div class="card">{aside}<div class="lines"><h3>{escape(card.title)}</h3>{lines}</div></div>\n'


def _marked(line: Line) -> str:
    """A line's text with its marks; one that overlaps an earlier one or lies outside comes after the text."""
    parts, late, at = [], [], 0
    for mark in sorted(line.marks, key=lambda m: (m.start, m.end)):
        label = f"<small>{escape(mark.label)}</small>"
        if not at <= mark.start < mark.end <= len(line.text):
            late.append(f" <mark>{escape(line.text[mark.start : mark.end])}{label}</mark>")
            continue
        marked = f"<mark>{escape(line.text[mark.start : mark.end])}{label}</mark>"
        parts += [escape(line.text[at : mark.start]), marked]
        at = mark.end
    return "".join(parts) + escape(line.text[at:]) + "".join(late)


def _picture(image: Image) -> str:
    try:
        return f'<img src="{_thumbnail(image)}" alt="{escape(image.example or Path(image.label).name, quote=True)}">'
    except ImageFault as fault:
        return f'<p class="note">no picture ({escape(Path(fault.source).name)}): {escape(fault.problem)}</p>'


def _thumbnail(image: Image) -> str:
    """The picture, decoded and encoded again in small, so that nothing of the file but its pixels gets in."""
    picture = image.open()
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
