"""The probe that asks whether a student looks: one sentence, and photos that no two splits share."""

from __future__ import annotations

from collections import Counter

import pytest
from magister.tasks.readers import READERS, data_root, read

pytestmark = pytest.mark.skipif(
    not (data_root() / READERS["image_decides_ner"].folder).is_dir(), reason="the photos are not here"
)


@pytest.mark.parametrize("name", ["image_decides_ner", "image_decides_relations"])
def test_the_text_tells_nothing(name: str) -> None:
    data = read(name)
    assert not data.faults
    for split in ("train", "valid", "test"):
        examples = data.split(split)
        assert len({(e.text, str(getattr(e, "pair", ""))) for e in examples}) == 1
        kinds = Counter(e.gold.model_dump_json() for e in examples)
        assert len(kinds) == 3
        assert len(set(kinds.values())) == 1
    photos = {split: {e.images[0].sha256() for e in data.split(split)} for split in ("train", "valid", "test")}
    assert not photos["test"] & (photos["train"] | photos["valid"])
    assert not any("Fruit" in e.images[0].source or "Fruit" in e.id for e in data.split("test"))


def test_the_controls_are_the_test_examples_with_other_photos_or_none() -> None:
    data = read("image_decides_ner")
    test, shuffled, without = (data.split(s) for s in ("test", "test_shuffled", "test_without"))
    assert [e.gold for e in test] == [e.gold for e in shuffled] == [e.gold for e in without]
    assert not any(e.images for e in without)
    assert Counter(e.images[0].source for e in test) == Counter(e.images[0].source for e in shuffled)
    assert all(a.images != b.images for a, b in zip(test, shuffled, strict=True))
    own = {e.images[0].source: e.gold for e in test}
    kept = sum(own[e.images[0].source] == e.gold for e in shuffled)
    assert kept < len(test) / 2  # a third is chance
