"""The sampler: valid data, pictures that open and agree with the gold, everything in the package."""

from __future__ import annotations

import json
import tomllib
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from magister.demo import draw
from magister.demo.canvas import SIDE
from magister.demo.icons import Look, icon
from magister.prompts.lint import lint
from magister.tasks.dataset import Dataset
from magister.tasks.readers import read
from PIL import Image as Pillow

DEMO = Path(draw.__file__).parent


@pytest.fixture(scope="module")
def posts() -> Dataset:
    return read(str(DEMO / "posts.jsonl"))


@pytest.fixture(scope="module")
def products() -> Dataset:
    return read(str(DEMO / "products.jsonl"))


def test_counts(posts: Dataset, products: Dataset) -> None:
    assert {name: len(of) for name, of in posts.splits.items()} == {"train": 62, "valid": 6, "test": 12}
    assert {name: len(of) for name, of in products.splits.items()} == {"train": 28, "test": 12}
    assert not posts.faults
    assert not products.faults


def test_posts(posts: Dataset) -> None:
    """Offsets are checked by the record itself; here: how many, types, no name outside the schema, no post twice."""
    every = [e for of in posts.splits.values() for e in of]
    assert len({e.id for e in every}) == len({e.text for e in every}) == len(every)
    assert all(1 <= len(e.gold.entities) <= 3 for e in every)
    for split in posts.splits.values():
        assert {x.type for e in split for x in e.gold.entities} == set(posts.schema.labels)
    for example in every:
        at = [(x.start, x.end) for x in example.gold.entities]
        assert at == sorted(at)
        assert all(end <= start for (_, end), (start, _) in pairwise(at))
    types: dict[str, set[str]] = {}
    for example in every:
        for entity in example.gold.entities:
            types.setdefault(entity.text, set()).add(entity.type)
    assert sum(len(of) > 1 for of in types.values()) >= 5  # names that text alone does not tell apart


def test_products(products: Dataset) -> None:
    """Every value asked has gold; options are options, verbatim values stand in the text; all kinds of value occur."""
    kinds: Counter[str] = Counter()
    for example in (e for of in products.splits.values() for e in of):
        assert 3 <= len(example.asked) <= 5
        assert set(example.gold.values) == set(example.asked)
        for name, values in example.gold.values.items():
            attribute = products.schema.attribute(name, example.category)
            for value in values:
                assert attribute.type != "one_of" or value in attribute.options
                assert attribute.type != "verbatim" or value in example.text
            kinds[attribute.type if values else "absent"] += 1
        colour = example.gold.values["color"][0]
        kinds["color only in the picture"] += colour not in example.text.lower()
    assert min(kinds[k] for k in ("verbatim", "one_of", "free", "absent")) >= 5
    assert kinds["color only in the picture"] >= 30


def test_knowledge_is_of_every_post_and_names_its_names(posts: Dataset) -> None:
    lines = [json.loads(line) for line in (DEMO / "knowledge.jsonl").read_text(encoding="utf-8").splitlines()]
    texts = {line["id"]: line["text"] for line in lines}
    every = {e.id: e for of in posts.splits.values() for e in of}
    assert len(lines) == len(texts)
    assert texts.keys() == every.keys()
    for name, example in every.items():
        for entity in example.gold.entities:
            assert f"{entity.text} (" in texts[name]
        assert not set(posts.schema.labels) & set(texts[name].split())


def test_every_picture_opens_and_is_used(posts: Dataset, products: Dataset) -> None:
    used = set()
    for dataset in (posts, products):
        for example in (e for of in dataset.splits.values() for e in of):
            for image in example.images:
                assert image.open().size == (SIDE, SIDE)
                used.add(Path(image.source).name)
    files = {path.name for path in (DEMO / "pictures").iterdir()}
    assert used == files
    assert sum(path.stat().st_size for path in DEMO.rglob("*") if path.is_file() and path.suffix != ".pyc") < 600_000


def test_the_pictures_are_those_that_draw_draws(tmp_path: Path) -> None:
    """Equal but for the rounding and the letters of another Pillow."""
    made = dict(draw.pictures())
    assert made.keys() == {path.stem for path in (DEMO / "pictures").iterdir()}
    for name, canvas in list(made.items())[::6]:
        canvas.save(tmp_path / "drawn.png")
        drawn = np.asarray(Pillow.open(tmp_path / "drawn.png").convert("RGB"), int)
        kept = np.asarray(Pillow.open(DEMO / "pictures" / f"{name}.png").convert("RGB"), int)
        assert np.abs(drawn - kept).mean() < 2, name


def test_a_products_color_is_seen_in_its_picture(products: Dataset) -> None:
    """By the colours' own names, so that a teacher that cannot see can be told."""
    from magister.teachers.colours import dominant_colours

    for example in (e for of in products.splits.values() for e in of):
        assert example.gold.values["color"][0] in dominant_colours(example.images[0].open()), example.id


def test_an_unknown_pattern_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown pattern 'wavy'"):
        icon(Look("mug", "red", pattern="wavy"))


def test_the_templates_are_sound() -> None:
    results = lint(DEMO / "prompts")
    assert len(results) == 2
    assert not [fault for result in results for fault in result.faults]


def test_the_worked_examples_are_not_of_the_data(posts: Dataset, products: Dataset) -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in DEMO.glob("prompts/*/*.jinja"))
    for example in (e for dataset in (posts, products) for of in dataset.splits.values() for e in of):
        assert example.text not in text
    for example in posts.split("test"):
        assert not [x.text for x in example.gold.entities if x.text in text]


def test_everything_is_in_the_package() -> None:
    data = tomllib.loads((DEMO.parent / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    named = {path for pattern in data["magister.demo"] for path in DEMO.glob(pattern)}
    files = {p for p in DEMO.rglob("*") if p.is_file() and p.suffix != ".py" and "__pycache__" not in p.parts}
    assert files == named
