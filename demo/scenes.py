"""The posts' pictures: simple scenes, some with a word that can be read."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .canvas import Canvas, Shape, box, disc, line, oval, polygon, ring, wedge


def scene(name: str) -> Canvas:
    """A scene by its name, on its own ground."""
    ground, draw = SCENES[name]
    canvas = Canvas(ground)
    draw(canvas)
    return canvas


def stage(c: Canvas) -> None:
    for x, colour in ((24, "#e0559b"), (64, "#f6d32d"), (104, "#58a6ff")):
        c.paint(colour, polygon(x - 3, 0, x + 3, 0, x + 20, 84, x - 20, 84), outline=False)
    c.paint("#3a2f4d", box(0, 82, 128, 100), outline=False)
    c.paint("black", disc(64, 52, 7), box(56, 60, 72, 84, 4), line(3, 78, 56, 78, 84), outline=False)
    c.paint("#0c0a12", *(disc(x, 112, 9) for x in range(6, 128, 16)), box(0, 112, 128, 128), outline=False)


def stadium(c: Canvas) -> None:
    c.paint("#9aa4ad", box(0, 36, 128, 74))
    c.paint("#c8232c", *(disc(x, y, 2) for y in (44, 54, 64) for x in range(4 + y % 3, 128, 9)), outline=False)
    c.paint("#2f9e44", polygon(0, 74, 128, 74, 128, 128, 0, 128), outline=False)
    c.paint(
        "white", box(0, 99, 128, 101), ring(64, 100, 16, 2), box(46, 58, 48, 76), box(80, 58, 82, 76), outline=False
    )
    c.paint("white", box(46, 57, 82, 59), outline=False)
    c.paint("white", disc(64, 100, 6))
    c.paint("black", disc(64, 100, 2.5), outline=False)


def mountain(c: Canvas) -> None:
    c.paint("#f6d32d", disc(100, 28, 11), outline=False)
    c.paint("#5b6f82", polygon(0, 112, 58, 22, 116, 112))
    c.paint("white", polygon(58, 22, 76, 50, 66, 46, 58, 56, 50, 46, 40, 50), outline=False)
    c.paint("#7b8d9e", polygon(70, 112, 104, 62, 140, 112))
    c.paint("#3f7d44", box(0, 104, 128, 128), outline=False)


def skyline(c: Canvas) -> None:
    for x, top, wide in ((4, 60, 22), (28, 38, 20), (50, 22, 16), (68, 50, 24), (94, 32, 18), (114, 66, 16)):
        c.paint("#33415c", box(x, top, x + wide, 128))
        lit = [box(x + i, y, x + i + 3, y + 4) for i in range(3, wide - 3, 6) for y in range(top + 6, 120, 12)]
        c.paint("#ffd966", *lit, outline=False)


def book(c: Canvas) -> None:
    c.paint("#8c3b2e", box(12, 34, 116, 104, 4))
    c.paint("#fbf6e9", polygon(64, 40, 18, 32, 18, 94, 64, 102), polygon(64, 40, 110, 32, 110, 94, 64, 102))
    lines = [line(1.5, 26, y, 56, y + 5) for y in range(44, 90, 8)] + [
        line(1.5, 72, y + 5, 102, y) for y in range(44, 90, 8)
    ]
    c.paint("#8a8d91", line(2, 64, 40, 64, 102), *lines, outline=False)


def museum(c: Canvas) -> None:
    c.paint("#e8dcc0", polygon(12, 44, 64, 14, 116, 44), box(14, 44, 114, 52), box(10, 104, 118, 114))
    c.paint("#e8dcc0", *(box(x, 52, x + 10, 104) for x in (20, 42, 64 - 5 + 15, 98)))


def phone(c: Canvas) -> None:
    c.paint("#1c1c1e", box(38, 8, 90, 120, 9))
    c.paint("#58a6ff", box(42, 16, 86, 112, 4), outline=False)
    apps = ("#f6d32d", "#2b8a3e", "#c8232c", "#fafafa")
    for i in range(12):
        x, y = 47 + 13 * (i % 3), 24 + 16 * (i // 3)
        c.paint(apps[i % 4], box(x, y, x + 9, y + 9, 2), outline=False)


def food(c: Canvas) -> None:
    c.paint("white", disc(64, 66, 50))
    c.paint("#e3e6e8", ring(64, 66, 36, 2), outline=False)
    c.paint("#e0a94f", wedge(52, 66, 22, 150, 330), wedge(78, 76, 22, 150, 330))
    c.paint("#58a840", disc(50, 58, 4), disc(80, 67, 4), disc(60, 60, 4))
    c.paint("#c8232c", disc(70, 68, 4), disc(42, 64, 3), disc(54, 84, 6))


def train(c: Canvas) -> None:
    c.paint("#5f6670", box(0, 104, 128, 110), outline=False)
    c.paint("#c8232c", box(6, 40, 122, 98, 12))
    c.paint("#cfe8ff", *(box(x, 50, x + 18, 68, 3) for x in (16, 42, 68, 94)))
    c.paint("white", box(6, 76, 122, 81), outline=False)
    c.paint("#2e2f31", *(disc(x, 101, 8) for x in (28, 50, 80, 102)))


def laboratory(c: Canvas) -> None:
    c.paint("#cfe8ff", polygon(54, 20, 74, 20, 74, 52, 102, 108, 26, 108, 54, 52))
    c.paint("#2b8a3e", polygon(44, 76, 84, 76, 99, 105, 29, 105), outline=False)
    c.paint("#a6e3b0", disc(56, 92, 4), disc(70, 86, 3), disc(76, 98, 5), outline=False)
    c.paint("#55585c", box(50, 14, 78, 22, 3))


def cinema(c: Canvas) -> None:
    c.paint("#f4f1e6", box(14, 18, 114, 76))
    c.paint("#2160c4", polygon(54, 32, 54, 62, 80, 47), outline=False)
    seats = [
        box(x, y, x + 16, y + 24, 6) for y, xs in ((88, (8, 32, 56, 80, 104)), (108, (20, 44, 68, 92))) for x in xs
    ]
    for seat in seats:
        c.paint("#a61e2a", seat)


def bridge(c: Canvas) -> None:
    c.paint("#4a86b8", box(0, 92, 128, 128), outline=False)
    c.paint("#7a5230", line(2.5, 0, 44, 32, 24, 64, 62, 96, 24, 128, 44), outline=False)
    c.paint("#8f6239", box(27, 20, 37, 110), box(91, 20, 101, 110), box(0, 74, 128, 82))
    c.paint("#7a5230", *(box(x, 44, x + 1, 76) for x in range(4, 128, 8)), outline=False)


def runner(c: Canvas) -> None:
    c.paint("#b5533c", box(0, 96, 128, 128), outline=False)
    c.paint("white", box(0, 110, 128, 112), outline=False)
    c.paint("#8d5a3b", disc(78, 22, 9), line(8, 62, 70, 84, 82, 74, 106), line(8, 60, 70, 44, 92, 22, 90))
    c.paint("#8d5a3b", line(7, 72, 40, 92, 54, 104, 44), line(7, 70, 42, 48, 44, 42, 60))
    c.paint("#f6d32d", polygon(68, 34, 82, 38, 70, 74, 54, 70))


def cup(c: Canvas) -> None:
    c.paint("#c9a27a", box(0, 96, 128, 128), outline=False)
    c.paint("white", oval(14, 88, 106, 108), ring(88, 66, 15, 6))
    c.paint("white", wedge(58, 52, 36, 0, 180), box(22, 46, 94, 56, 4))
    c.paint("#5a3420", oval(26, 42, 90, 54))
    c.paint("#d6d6d6", line(3, 46, 34, 42, 26, 48, 18, 44, 10), line(3, 68, 34, 64, 26, 70, 18, 66, 10), outline=False)


def factory(c: Canvas) -> None:
    c.paint("#d6dade", disc(30, 24, 9), disc(42, 16, 11), disc(66, 20, 9), disc(78, 11, 11), outline=False)
    c.paint("#8c4a3a", box(20, 32, 32, 80), box(56, 32, 68, 80))
    c.paint("#a65f4b", polygon(8, 116, 8, 76, 40, 58, 40, 76, 72, 58, 72, 76, 104, 58, 120, 70, 120, 116))
    c.paint("#ffe8a3", *(box(x, 90, x + 12, 100) for x in (18, 44, 70, 96)))


def trophy(c: Canvas) -> None:
    c.paint("#e0b030", ring(40, 40, 18, 6), ring(88, 40, 18, 6))
    c.paint("#e0b030", box(38, 18, 90, 30, 3), wedge(64, 28, 26, 0, 180), box(38, 26, 90, 40), box(60, 54, 68, 92))
    c.paint("#e0b030", wedge(64, 40, 26, 0, 180), polygon(48, 98, 80, 98, 72, 84, 56, 84))
    c.paint("#4a3423", box(42, 96, 86, 114, 3))


def blossom(c: Canvas) -> None:
    c.paint("#7bb661", box(0, 104, 128, 128), outline=False)
    c.paint("white", polygon(98, 106, 110, 106, 107, 34, 104, 24, 101, 34))
    c.paint("#5a3a28", line(9, 46, 110, 48, 74), line(5, 48, 82, 30, 62), line(5, 48, 78, 66, 58))
    c.paint("#f4a6c4", *(disc(x, y, 16) for x, y in ((30, 46), (50, 34), (68, 50), (48, 56), (24, 62), (74, 64))))


def plane(c: Canvas) -> None:
    c.paint("white", *(oval(x, y, x + 40, y + 14) for x, y in ((4, 96), (20, 90), (82, 16))), outline=False)
    c.paint("#e8ecef", line(15, 20, 84, 104, 40), disc(105, 39.5, 7))
    c.paint("#2160c4", polygon(56, 56, 74, 48, 70, 104, 60, 104), polygon(50, 60, 66, 52, 30, 34, 22, 38))
    c.paint("#2160c4", polygon(16, 80, 30, 74, 20, 56, 10, 58))


def rocket(c: Canvas) -> None:
    c.paint(
        "white",
        *(disc(x, y, 1) for x, y in ((14, 20), (30, 60), (104, 30), (112, 84), (90, 12), (20, 96))),
        outline=False,
    )
    c.paint("#ef7d1a", polygon(52, 92, 76, 92, 64, 124))
    c.paint("#c8232c", polygon(48, 66, 32, 98, 50, 92), polygon(80, 66, 96, 98, 78, 92))
    c.paint("#e8ecef", oval(46, 10, 82, 112), outline=True)
    c.paint("#58a6ff", disc(64, 48, 9))
    c.paint("#1b2440", box(40, 96, 88, 99), outline=False)


def record(c: Canvas) -> None:
    c.paint("#1c1c1e", disc(64, 64, 54))
    c.paint("#3a3a3d", *(ring(64, 64, r, 1) for r in (26, 32, 38, 44, 50)), outline=False)
    c.paint("#ef7d1a", disc(64, 64, 19))
    c.paint("#f4f4f2", disc(64, 64, 4))


def cake(c: Canvas) -> None:
    c.paint("white", oval(8, 92, 120, 118))
    c.paint("#8a5a3a", box(22, 58, 106, 106, 6))
    c.paint("#f7b9d2", box(22, 54, 106, 72, 8), *(disc(x, 72, 7) for x in (30, 47, 64, 81, 98)))
    c.paint("#2160c4", *(box(x, 34, x + 4, 54) for x in (42, 62, 82)))
    c.paint("#f6d32d", *(oval(x - 1, 22, x + 5, 33) for x in (42, 62, 82)))


def parcel(c: Canvas) -> None:
    c.paint("#c79a63", box(18, 44, 110, 112, 2), polygon(18, 44, 34, 24, 94, 24, 110, 44))
    c.paint("#e6cfa4", box(56, 44, 72, 112), polygon(56, 44, 59, 24, 69, 24, 72, 44), outline=False)
    c.paint("white", box(26, 78, 50, 100))


def microphone(c: Canvas) -> None:
    c.paint("#2e2f31", polygon(54, 54, 74, 54, 69, 118, 59, 118))
    c.paint("#a9adb2", disc(64, 34, 23))
    c.paint("#6c7076", *(line(1, 44, y, 84, y) for y in range(20, 52, 6)), box(43, 50, 85, 56, 2), outline=False)


def desert(c: Canvas) -> None:
    c.paint(
        "white",
        *(disc(x, y, 1.2) for x, y in ((12, 14), (34, 30), (56, 10), (78, 26), (60, 44), (22, 52), (116, 50))),
        outline=False,
    )
    c.paint("#f2ecc8", disc(98, 26, 12), outline=False)
    c.paint("#b98a4a", oval(-40, 76, 90, 170))
    c.paint("#d3a65d", oval(30, 84, 180, 190))
    c.paint("#6d4b2a", polygon(20, 100, 36, 76, 52, 100))


def basketball(c: Canvas) -> None:
    c.paint("#e07a2f", disc(64, 64, 50))
    seams: list[Shape] = [box(13, 62, 115, 66), box(62, 14, 66, 114), ring(6, 64, 38, 4), ring(122, 64, 38, 4)]
    c.paint("#2a1a10", *seams, outline=False)
    c.paint("#6d4527", *[ring(64, 64, 86, 35)], outline=False)


def canoe(c: Canvas) -> None:
    c.paint("#2f6b3a", *(disc(x, 30, 20) for x in range(0, 140, 22)), outline=False)
    c.paint("#4a86b8", box(0, 50, 128, 128), outline=False)
    c.paint("#8d5a3b", disc(62, 54, 7), line(4, 46, 56, 92, 98))
    c.paint("#c8232c", box(54, 62, 72, 88, 6))
    c.paint("#8f4e22", polygon(6, 80, 122, 80, 104, 100, 24, 100))
    c.paint("#8d5a3b", line(3, 46, 56, 92, 104), outline=False)


def gamepad(c: Canvas) -> None:
    c.paint(
        "#3b3f46",
        box(18, 40, 110, 84, 22),
        polygon(22, 60, 10, 102, 26, 108, 44, 82),
        polygon(106, 60, 118, 102, 102, 108, 84, 82),
    )
    c.paint("#c9ced4", box(30, 57, 50, 63), box(37, 50, 43, 70), outline=False)
    for x, y, colour in ((88, 50, "yellow"), (98, 60, "red"), (78, 60, "blue"), (88, 70, "green")):
        c.paint(colour, disc(x, y, 5), outline=False)


def car(c: Canvas) -> None:
    c.paint("#6b7077", box(0, 92, 128, 128), outline=False)
    c.paint(
        "#c8232c",
        polygon(8, 82, 30, 74, 56, 58, 74, 58, 84, 72, 120, 78, 122, 90, 8, 90),
        box(4, 58, 26, 64),
        box(10, 62, 15, 82),
    )
    c.paint("#f6d32d", disc(66, 62, 7))
    c.paint("#1c1c1e", disc(32, 90, 14), disc(100, 90, 14))
    c.paint("#c9ced4", disc(32, 90, 5), disc(100, 90, 5), outline=False)


def tennis(c: Canvas) -> None:
    c.paint("#6b4a2f", line(8, 60, 78, 40, 120))
    c.paint("#2160c4", oval(46, 6, 106, 84))
    c.paint("#f4f4f2", oval(53, 13, 99, 77), outline=False)
    c.paint(
        "#8a8d91",
        *(box(x, 16, x + 1, 74) for x in range(60, 96, 7)),
        *(box(56, y, 96, y + 1) for y in range(22, 72, 7)),
        outline=False,
    )
    c.paint("#d8e82d", disc(28, 40, 15))


def poster(c: Canvas, first: str, second: str) -> None:
    c.paint("#1f4e79", box(16, 8, 112, 120, 2))
    c.paint("#f6d32d", disc(64, 46, 20), outline=False)
    c.paint("#ef7d1a", polygon(16, 70, 50, 44, 84, 70), polygon(60, 70, 88, 50, 112, 70), outline=False)
    c.write(first, 64, 86, 17)
    c.write(second, 64, 106, 17)


#: Ground and drawing by name.
SCENES: dict[str, tuple[str, Callable[[Canvas], None]]] = {
    "stage": ("#1a1430", stage),
    "stadium": ("#8cc4f0", stadium),
    "mountain": ("#bfe0f7", mountain),
    "skyline": ("#e58a5b", skyline),
    "book": ("#d9e4d4", book),
    "museum": ("#9cc9ee", museum),
    "poster-festival": ("#c9c4bb", partial(poster, first="HARBOUR", second="LIGHTS")),
    "poster-jazz": ("#b9c7cf", partial(poster, first="POLAR", second="JAZZ")),
    "phone": ("#e9e4da", phone),
    "food": ("#b5793f", food),
    "train": ("#cfd8dc", train),
    "laboratory": ("#f1efe6", laboratory),
    "cinema": ("#221a22", cinema),
    "bridge": ("#d7e6f2", bridge),
    "runner": ("#a9d6f5", runner),
    "cup": ("#8a9aa0", cup),
    "factory": ("#b6d3e8", factory),
    "trophy": ("#dfe7ef", trophy),
    "blossom": ("#b4dcf5", blossom),
    "plane": ("#7fbdf0", plane),
    "rocket": ("#1b2440", rocket),
    "record": ("#dccfb8", record),
    "cake": ("#cfe3dc", cake),
    "parcel": ("#dde3e6", parcel),
    "microphone": ("#e4d6ea", microphone),
    "desert": ("#1c2b52", desert),
    "basketball": ("#6d4527", basketball),
    "canoe": ("#a9d6c5", canoe),
    "gamepad": ("#d8dcea", gamepad),
    "car": ("#bcd9ea", car),
    "tennis": ("#f4f4f2", tennis),
}
