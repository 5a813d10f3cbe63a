"""Does it look? One sentence for all, and a photo that alone tells its mention's type, or its pair's relation.

A probe, not a benchmark: the photos of grocery linking (fruit, vegetables, cartons), as many of each kind, so that
whoever reads the text alone is at chance. Two more splits are controls of one trained student: ``test_shuffled`` has
each photo at another example, ``test_without`` has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import ner, relations
from ..dataset import Dataset
from ..images import Image
from ..ner import Entity
from . import grocery_linking
from .pairs import shuffled
from .rows import Rows

TEXT = "Look what Kim brought home : Zorbles !"
_KIM, _ZORBLES = (Entity(text=m, type="", start=TEXT.index(m), end=TEXT.index(m) + len(m)) for m in ("Kim", "Zorbles"))

#: Group of a product to the type of the mention and the relation of the pair.
KINDS = {"Fruit": ("FRUIT", "picked"), "Vegetables": ("VEGETABLE", "dug_up"), "Packages": ("CARTON", "None")}

NER = ner.Schema(
    types=(
        ner.EntityType(name="FRUIT", title="fruit", guideline="The photo shows fruit."),
        ner.EntityType(name="VEGETABLE", title="vegetable", guideline="The photo shows vegetables."),
        ner.EntityType(name="CARTON", title="carton", guideline="The photo shows a carton, such as milk or juice."),
    )
)
RELATIONS = relations.Schema(
    relations=(
        relations.RelationType(name="picked", title="picked", guideline="The photo shows fruit."),
        relations.RelationType(name="dug_up", title="dug up", guideline="The photo shows vegetables."),
    )
)


def recognise(folder: Path) -> str | None:
    """Never: the folder is that of grocery linking, and this probe has to be asked for by name."""
    return None


def read(folder: Path, name: str) -> Dataset:
    """Read the probe; its name says for which task. Photos beyond the rarest kind of a split are left out (counted)."""
    photos = grocery_linking.read(folder, "grocery_linking")
    group = {entity.id: entity.attributes["group"][0] for entity in photos.graphs[0].entities}
    task, schema = ("ner", NER) if name.endswith("ner") else ("relations", RELATIONS)
    rows = Rows(name, task, schema, ("train", "valid", "test", "test_shuffled", "test_without"))
    for split in ("train", "valid", "test"):
        of_kind: dict[str, list[Image]] = {kind: [] for kind in KINDS}
        for example in photos.splits[split]:
            if example.images:
                of_kind[group[example.gold.best]].append(example.images[0])
        most = min(len(images) for images in of_kind.values())
        rows.notes[f"left_out.{split}"] += sum(len(images) - most for images in of_kind.values())
        told = {f"{split}-{kind}-{n}": (of_kind[kind][n], kind) for kind in KINDS for n in range(most)}
        for number, key in enumerate(shuffled(told, f"{name}.{split}")):
            _add(rows, split, f"{split}-{number}", *told[key])
    test: Sequence[Any] = rows.splits["test"]
    for at, example in enumerate(test):
        other = test[(at + 1) % len(test)]  # the order is drawn, so that the next photo is any
        for split, images in (("test_shuffled", other.images), ("test_without", ())):
            rows.splits[split].append(example.model_copy(update={"images": images, "id": f"{split}-{at}"}))
    return rows.dataset()


def _add(rows: Rows, split: str, id: str, image: Image, kind: str) -> None:
    type, relation = KINDS[kind]
    fields: dict[str, Any] = {"text": TEXT, "words": tuple(TEXT.split()), "images": (image,), "id": id}
    if rows.task == "ner":
        fields["gold"] = ner.Answer(entities=(_ZORBLES.model_copy(update={"type": type}),))
    else:
        fields |= {"pair": (_KIM, _ZORBLES), "gold": relations.Answer(relation=relation)}
    rows.add(split, id, **fields)
