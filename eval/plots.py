"""Plots as inline SVG strings: bars with error bars, curves with bands. The page's CSS gives the colours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from .sections import Bars, Curve

#: Drawing units; the page scales the drawing to its width.
WIDTH = 760
#: The page's CSS has this many series colours (``.s0`` ...); further series take them in turn.
COLOURS = 6

_CHARACTER = 7.0
_LABEL_MAX = 290
_BAR, _GAP = 18, 12


def bars_svg(section: Bars) -> str:
    """Horizontal bars from zero in per cent; error bars where a bar has an interval."""
    groups = list(dict.fromkeys(bar.group for bar in section.bars))
    top = 26 if len(groups) > 1 else 4
    left = min(_LABEL_MAX, max((len(bar.label) for bar in section.bars), default=0) * _CHARACTER) + 12
    right = WIDTH - 52
    reach = max([bar.high or bar.value for bar in section.bars], default=0.0) or 1.0
    ticks = nice_ticks(0.0, 100 * reach)
    scale = lambda fraction: left + (right - left) * 100 * fraction / ticks[-1]
    bottom = top + len(section.bars) * (_BAR + _GAP)
    parts = [_legend(groups, left) if len(groups) > 1 else ""]
    for tick in ticks:
        x = scale(tick / 100)
        parts.append(_line(x, top, x, bottom, "grid") + _text(x, bottom + 16, f"{tick:g}", "tick middle"))
    for i, bar in enumerate(section.bars):
        y = top + i * (_BAR + _GAP) + _GAP / 2
        middle, tip = y + _BAR / 2, scale(bar.value)
        colour = f"s{groups.index(bar.group) % COLOURS}"
        shown = f"{100 * bar.value:.1f}"
        parts.append(_text(left - 10, middle + 4, _fitted(bar.label), "label end"))
        parts.append(
            f'<rect class="{colour}" x="{left:.1f}" y="{y:.1f}" rx="3"'
            f' width="{tip - left:.1f}" height="{_BAR}">'
            f"<title>{escape(bar.label)}: {shown}{_range(bar.low, bar.high)}</title></rect>"
        )
        if bar.low is not None and bar.high is not None:
            low, high = scale(bar.low), scale(bar.high)
            parts.append(_line(low, middle, high, middle, "whisker"))
            parts += [_line(x, middle - 4, x, middle + 4, "whisker") for x in (low, high)]
            tip = max(tip, high)
        parts.append(_text(tip + 7, middle + 4, shown, "value"))
    return _svg(bottom + 24, section.title, parts)


def curve_svg(section: Curve) -> str:
    """Lines with points and interval bands; the y axis covers the intervals and need not start at zero."""
    points = [point for line in section.lines.values() for point in line]
    if not points:
        return _svg(30, section.title, [_text(WIDTH / 2, 20, "no points", "tick middle")])
    left, right, top, bottom = 52, WIDTH - 24, 34, 330
    ticks = nice_ticks(100 * min(p.low for p in points), 100 * max(p.high for p in points))
    xs = sorted({point.x for point in points})
    span = (xs[-1] - xs[0]) or 1.0
    x_at = lambda x: left + 18 + (right - left - 36) * (x - xs[0]) / span
    y_at = lambda v: bottom - (bottom - top) * (100 * v - ticks[0]) / (ticks[-1] - ticks[0])
    parts = [_legend(list(section.lines), left)]
    for tick in ticks:
        y = y_at(tick / 100)
        parts.append(_line(left, y, right, y, "grid") + _text(left - 8, y + 4, f"{tick:g}", "tick end"))
    for x in _spaced(xs, [x_at(x) for x in xs]):
        parts.append(_text(x_at(x), bottom + 18, f"{x:,g}", "tick middle"))
    parts.append(_text((left + right) / 2, bottom + 38, section.x_label, "label middle"))
    for i, (name, line) in enumerate(section.lines.items()):
        colour, line = f"s{i % COLOURS}", tuple(sorted(line, key=lambda p: p.x))
        upper = [(x_at(p.x), y_at(p.high)) for p in line]
        lower = [(x_at(p.x), y_at(p.low)) for p in reversed(line)]
        parts.append(f'<polygon class="{colour} band" points="{_path(upper + lower)}"/>')
        parts.append(f'<polyline class="{colour} line" points="{_path([(x_at(p.x), y_at(p.value)) for p in line])}"/>')
        for p in line:
            title = f"{escape(name)}, {p.x:,g}: {100 * p.value:.1f}{_range(p.low, p.high)}"
            at = f'cx="{x_at(p.x):.1f}" cy="{y_at(p.value):.1f}"'
            parts.append(f'<circle class="{colour}" {at} r="4"><title>{title}</title></circle>')
    return _svg(bottom + 48, section.title, parts)


def nice_ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round axis ticks from at or below ``low`` to at or above ``high``, never fewer than two."""
    step = 10 ** math.floor(math.log10(max(high - low, 1e-9) / about))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (step * m) <= about or m == 10)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 10) for i in range(first, max(last, first + 1) + 1)]


def _spaced(values: Sequence[float], places: Sequence[float], apart: float = 48) -> list[float]:
    """The values whose places are far enough apart to be written; the largest first."""
    kept: list[float] = []
    last = math.inf
    for value, place in sorted(zip(values, places, strict=True), reverse=True):
        if last - place >= apart:
            kept.append(value)
            last = place
    return kept


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escape(title, quote=True)}">'
        + "".join(parts)
        + "</svg>"
    )


def _legend(names: Sequence[str], left: float) -> str:
    parts, x = [], left
    for i, name in enumerate(names):
        parts.append(f'<rect class="s{i % COLOURS}" x="{x:.1f}" y="3" width="12" height="12" rx="3"/>')
        parts.append(_text(x + 18, 13.5, name, "label"))
        x += 18 + len(name) * _CHARACTER + 22
    return "".join(parts)


def _fitted(label: str) -> str:
    """The label, cut with an ellipsis where it is wider than its column; its bar's tooltip has it whole."""
    room = int(_LABEL_MAX / _CHARACTER)
    return label if len(label) <= room else label[: room - 1].rstrip() + "…"


def _range(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f" ({100 * low:.1f} – {100 * high:.1f})"


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}">{escape(text)}</text>'


def _path(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
