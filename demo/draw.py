"""Draws the sampler's pictures: ``python -m magister.demo.draw FOLDER``. Products are drawn from their gold values."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from ..tasks import attributes
from ..tasks.readers import jsonl
from .canvas import Canvas
from .icons import Look, icon
from .scenes import SCENES, scene

HERE = Path(__file__).resolve().parent


def pictures() -> Iterator[tuple[str, Canvas]]:
    """Every picture of the sampler with its name: the products', then the posts' scenes."""
    products = jsonl.read(HERE / "products.jsonl")
    for examples in products.splits.values():
        for product in examples:
            yield product.id, icon(look(product))
    for name in SCENES:
        yield name, scene(name)


def look(product: attributes.Example) -> Look:
    """What a product looks like, as its gold values say; what is not asked is plain."""
    gold = product.gold.values if product.gold else {}
    shown = {name: values[0] for name, values in gold.items() if values and name in Look._fields}
    return Look(product.category, **shown)


def draw(folder: Path) -> int:
    """Draw all pictures into a folder; gives their number."""
    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, canvas in pictures():
        canvas.save(folder / f"{name}.png")
        count += 1
    return count


if __name__ == "__main__":
    print(f"{draw(Path(sys.argv[1]))} pictures drawn")
