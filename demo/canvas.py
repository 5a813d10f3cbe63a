"""A small canvas: flat shapes with an outline and a pattern, drawn large and scaled down, the same at every run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageFont

#: Side of a finished picture in pixels; shapes are placed on a grid of that size.
SIDE = 128
#: How much larger it is drawn.
_SCALE = 4

#: The colours by the names that the products' attribute ``color`` has.
PAINTS = {
    "black": "#1c1c1e",
    "white": "#fafafa",
    "grey": "#8a8d91",
    "red": "#c8232c",
    "orange": "#ef7d1a",
    "yellow": "#f6d32d",
    "green": "#2b8a3e",
    "blue": "#2160c4",
    "purple": "#7438a8",
    "pink": "#ef85b5",
    "brown": "#74462a",
}

#: A shape: draws itself in white on a mask of the drawing's size.
Shape = Callable[[ImageDraw.ImageDraw], None]


def _large(numbers: tuple[float, ...]) -> list[int]:
    return [round(number * _SCALE) for number in numbers]


def box(x0: float, y0: float, x1: float, y1: float, radius: float = 0) -> Shape:
    """A rectangle with rounded corners."""
    return lambda d: d.rounded_rectangle(_large((x0, y0, x1, y1)), round(radius * _SCALE), fill=255)


def oval(x0: float, y0: float, x1: float, y1: float) -> Shape:
    """An ellipse in its box."""
    return lambda d: d.ellipse(_large((x0, y0, x1, y1)), fill=255)


def disc(x: float, y: float, radius: float) -> Shape:
    """A circle round its centre."""
    return oval(x - radius, y - radius, x + radius, y + radius)


def ring(x: float, y: float, radius: float, width: float) -> Shape:
    """A circle's line."""
    edges = (x - radius, y - radius, x + radius, y + radius)
    return lambda d: d.ellipse(_large(edges), outline=255, width=round(width * _SCALE))


def wedge(x: float, y: float, radius: float, start: float, end: float) -> Shape:
    """A part of a circle, degrees clockwise from three o'clock."""
    edges = (x - radius, y - radius, x + radius, y + radius)
    return lambda d: d.pieslice(_large(edges), start, end, fill=255)


def polygon(*points: float) -> Shape:
    """A polygon: x, y, x, y, ..."""
    return lambda d: d.polygon(_large(points), fill=255)


def line(width: float, *points: float) -> Shape:
    """A line through points, with round corners."""
    return lambda d: d.line(_large(points), fill=255, width=round(width * _SCALE), joint="curve")


class Canvas:
    """A square picture that is painted from back to front."""

    def __init__(self, ground: str) -> None:
        side = SIDE * _SCALE
        self._picture = Image.new("RGB", (side, side), PAINTS.get(ground, ground))

    def paint(self, colour: str, *shapes: Shape, pattern: str = "plain", outline: bool = True) -> None:
        """Paint the union of some shapes in one colour (a name of `PAINTS` or ``#rrggbb``) and pattern."""
        colour = PAINTS.get(colour, colour)
        mask = Image.new("L", self._picture.size)
        for shape in shapes:
            shape(ImageDraw.Draw(mask))
        if outline:
            self._picture.paste(_mixed(colour, "#000000", 0.45), (0, 0), mask.filter(ImageFilter.MaxFilter(7)))
        self._picture.paste(colour, (0, 0), mask)
        if pattern != "plain":
            marks = ImageChops.multiply(mask, _pattern(pattern, self._picture.size))
            lighter = sum(bytes.fromhex(colour[1:])) < 480
            self._picture.paste(_mixed(colour, "#ffffff" if lighter else "#000000", 0.75), (0, 0), marks)

    def write(self, text: str, x: float, y: float, size: float, colour: str = "white") -> None:
        """A word, centred at a point."""
        font = ImageFont.load_default(size * _SCALE)
        draw = ImageDraw.Draw(self._picture)
        draw.text((x * _SCALE, y * _SCALE), text, PAINTS.get(colour, colour), font, anchor="mm")

    def save(self, path: Path) -> None:
        """Write a small PNG (64 colours)."""
        small = self._picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        small.quantize(64, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE).save(path, optimize=True)


def _mixed(first: str, second: str, share: float) -> tuple[int, ...]:
    """A colour with a share of another."""
    pairs = zip(bytes.fromhex(first[1:]), bytes.fromhex(second[1:]), strict=True)
    return tuple(round(a * (1 - share) + b * share) for a, b in pairs)


def _pattern(name: str, size: tuple[int, int]) -> Image.Image:
    """Where a pattern is, as a mask of the whole drawing."""
    mask = Image.new("L", size)
    draw, step = ImageDraw.Draw(mask), 14 * _SCALE
    for at in range(0, size[0], step):
        if name == "striped":
            draw.rectangle((0, at, size[0], at + step * 0.4), fill=255)
        elif name == "checked":
            for other in range(0, size[1], step):
                if (at + other) // step % 2:
                    draw.rectangle((at, other, at + step - 1, other + step - 1), fill=255)
        elif name == "dotted":
            for other in range(0, size[1], step):
                left = at + (other // step % 2) * step / 2
                draw.ellipse((left, other, left + step * 0.4, other + step * 0.4), fill=255)
        else:
            raise ValueError(f"unknown pattern {name!r}")
    return mask
