"""The products' pictures: one icon a category, in the colour, pattern, shape and print that the gold values say."""

from __future__ import annotations

from typing import NamedTuple

from .canvas import PAINTS, Canvas, Shape, box, disc, line, oval, polygon, ring, wedge


class Look(NamedTuple):
    """What a product looks like."""

    category: str
    color: str
    pattern: str = "plain"
    shape: str = "round"
    print: str = ""


def icon(look: Look) -> Canvas:
    """A product on a plain ground from which it stands out."""
    canvas = Canvas("#f4f4f2")
    ICONS[look.category](canvas, look)
    return canvas


def _on(look: Look) -> str:
    """The colour in which a word or a detail can be seen on the product."""
    return "black" if sum(bytes.fromhex(PAINTS[look.color][1:])) > 420 else "white"


def mug(c: Canvas, look: Look) -> None:
    c.paint(look.color, ring(88, 66, 22, 8))
    c.paint(look.color, box(24, 34, 86, 104, 10), pattern=look.pattern)
    c.paint("#3b2a20", oval(27, 30, 83, 42))
    c.write(look.print, 55, 74, 16, _on(look))


def t_shirt(c: Canvas, look: Look) -> None:
    sleeves = polygon(40, 22, 10, 44, 24, 64, 38, 54, 38, 110, 90, 110, 90, 54, 104, 64, 118, 44, 88, 22)
    c.paint(look.color, sleeves, pattern=look.pattern)
    c.paint("#f4f4f2", oval(50, 12, 78, 32))
    c.write(look.print, 64, 68, 17, _on(look))


def backpack(c: Canvas, look: Look) -> None:
    c.paint("#4a4a4c", ring(64, 22, 12, 5))
    c.paint(look.color, box(28, 20, 100, 112, 22))
    c.paint(look.color, box(16, 66, 32, 104, 7), box(96, 66, 112, 104, 7))
    c.paint(look.color, box(38, 64, 90, 104, 8))
    c.paint("#e8e3d8", box(40, 74, 88, 77), outline=False)
    c.paint("#e8e3d8", box(36, 46, 92, 49), outline=False)


def lamp(c: Canvas, look: Look) -> None:
    c.paint("#55585c", box(60, 62, 68, 108), oval(38, 100, 90, 114))
    c.paint("#fff3b0", disc(64, 64, 9))
    c.paint(look.color, polygon(44, 16, 84, 16, 108, 64, 20, 64))


def bottle(c: Canvas, look: Look) -> None:
    c.paint("#3a3d40", box(54, 10, 74, 26, 3))
    c.paint(look.color, box(42, 34, 86, 118, 12), polygon(55, 26, 73, 26, 86, 46, 42, 46))
    c.paint("white", box(50, 52, 56, 104, 3), outline=False)


def chair(c: Canvas, look: Look) -> None:
    c.paint(look.color, line(7, 38, 74, 32, 116), line(7, 88, 74, 96, 116), line(6, 48, 74, 48, 104))
    c.paint(look.color, line(6, 80, 74, 80, 104), box(36, 12, 90, 54, 10))
    c.paint(look.color, box(30, 64, 98, 78, 5), box(42, 52, 48, 68), box(78, 52, 84, 68))


def umbrella(c: Canvas, look: Look) -> None:
    c.paint("#4a3423", line(5, 64, 20, 64, 104), wedge(57, 104, 9, 0, 180))
    c.paint("#f4f4f2", wedge(57, 104, 4, 0, 180), outline=False)
    c.paint(look.color, wedge(64, 68, 54, 180, 360), pattern=look.pattern)
    c.paint("#f4f4f2", *(wedge(x, 69, 13.5, 180, 360) for x in (24, 51, 77, 104)), outline=False)


def kettle(c: Canvas, look: Look) -> None:
    c.paint("#2e2f31", ring(64, 36, 28, 7))
    c.paint(look.color, polygon(84, 62, 112, 38, 118, 44, 98, 90))
    c.paint(look.color, polygon(40, 46, 88, 46, 104, 110, 24, 110))
    c.paint("#2e2f31", disc(64, 40, 5), box(44, 43, 84, 48))


def cushion(c: Canvas, look: Look) -> None:
    shapes: dict[str, tuple[Shape, ...]] = {
        "square": (box(20, 20, 108, 108, 14),),
        "round": (disc(64, 64, 48),),
        "heart": _heart(),
    }
    c.paint(look.color, *shapes[look.shape], pattern=look.pattern)


def _heart() -> tuple[Shape, ...]:
    return disc(42, 46, 26), disc(86, 46, 26), polygon(20, 60, 64, 114, 108, 60, 64, 40)


def cap(c: Canvas, look: Look) -> None:
    c.paint(look.color, wedge(56, 76, 42, 180, 360))
    c.paint(look.color, polygon(60, 70, 96, 68, 120, 80, 118, 86, 60, 80), box(14, 70, 98, 80, 3))
    c.paint(look.color, disc(56, 35, 4))
    c.write(look.print, 54, 59, 18, _on(look))


def clock(c: Canvas, look: Look) -> None:
    outer, inner = (disc(64, 64, 52), disc(64, 64, 38))
    if look.shape == "square":
        outer, inner = box(12, 12, 116, 116, 8), box(26, 26, 102, 102, 4)
    c.paint(look.color, outer)
    c.paint("white", inner)
    c.paint("black", line(5, 64, 64, 64, 38), line(5, 64, 64, 82, 74), disc(64, 64, 4), outline=False)
    c.paint("black", box(62, 29, 66, 34), box(62, 94, 66, 99), box(29, 62, 34, 66), box(94, 62, 99, 66), outline=False)


def plate(c: Canvas, look: Look) -> None:
    c.paint(look.color, disc(64, 64, 52))
    c.paint("#e9eef2", ring(64, 64, 34, 2), outline=False)


def vase(c: Canvas, look: Look) -> None:
    c.paint("#3c7a3a", line(3, 64, 46, 52, 16), line(3, 64, 46, 78, 14), outline=False)
    c.paint("#f6d32d", disc(51, 15, 7), disc(79, 13, 7))
    c.paint(look.color, oval(34, 56, 94, 118), box(52, 38, 76, 70), polygon(46, 34, 82, 34, 76, 46, 52, 46))


def scarf(c: Canvas, look: Look) -> None:
    c.paint(look.color, box(58, 48, 84, 112, 2), pattern=look.pattern)
    c.paint(look.color, box(36, 44, 62, 98, 2), pattern=look.pattern)
    c.paint(look.color, oval(22, 18, 106, 60), pattern=look.pattern)
    c.paint("#f4f4f2", oval(42, 18, 86, 36))


def notebook(c: Canvas, look: Look) -> None:
    c.paint("white", box(34, 18, 104, 114, 3))
    c.paint(look.color, box(28, 14, 98, 110, 5))
    c.paint("#2e2f31", box(84, 14, 88, 110), outline=False)
    c.write(look.print, 56, 50, 17, _on(look))


def sneaker(c: Canvas, look: Look) -> None:
    c.paint(look.color, polygon(14, 48, 44, 46, 58, 58, 74, 66, 108, 74, 116, 92, 14, 92))
    c.paint("white", box(10, 88, 120, 102, 7))
    c.paint("white", *(line(4, 50 + 10 * i, 62 + 4 * i, 60 + 10 * i, 52 + 5 * i) for i in range(4)), outline=False)


ICONS = {
    "mug": mug,
    "t-shirt": t_shirt,
    "backpack": backpack,
    "lamp": lamp,
    "bottle": bottle,
    "chair": chair,
    "umbrella": umbrella,
    "kettle": kettle,
    "cushion": cushion,
    "cap": cap,
    "clock": clock,
    "plate": plate,
    "vase": vase,
    "scarf": scarf,
    "notebook": notebook,
    "sneaker": sneaker,
}
