"""OCSGA: what its objects are, by name or by sight, and what no object does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from magister.distill.recipe import RecipeFault, check
from magister.students.ner.ocsga import OCSGA, OCSGAConfig, object_names
from magister.students.student import Output, View
from magister.students.system import UnsupportedView
from magister.tasks import ner

SEES = View(images=True)


def build(schema: ner.Schema, posts: Any, vectors: str, **settings: Any) -> OCSGA:
    settings = {"hidden": 12, "dropout": 0.0, "word_dropout": 0.0, "attention_dropout": 0.0} | settings
    torch.manual_seed(0)
    config = OCSGAConfig(**{"image_encoder": "words:objects", "vectors": vectors, **settings})
    student: OCSGA = OCSGA.create(config, {"ner": schema}, posts)
    return student


@pytest.fixture
def vectors(tmp_path: Path) -> str:
    file = tmp_path / "vectors.txt"
    words = {"traffic": "1 0 0", "light": "0 1 0", "person": "0 0 1", "dog": "-1 0 2", "kawhi": "1 1 1", "to": "0 0 4"}
    file.write_text("".join(f"{word} {vector}\n" for word, vector in words.items()))
    return str(file)


def named(post: ner.Example, objects: str, side: str = "objects") -> ner.Example:
    return post.model_copy(update={"context": {side: objects}})


def test_names_of_objects() -> None:
    listed = "traffic light; Person;person ;; dog"
    assert object_names(listed) == [("traffic", "light"), ("person",), ("dog",)]
    caption = "a dog and the other dog with a person on it, 2 Dogs"
    assert object_names(caption) == [("dog",), ("other",), ("person",), ("dogs",)]
    assert object_names("it is the") == object_names(";") == []


def test_objects_have_the_vectors_of_the_words(ner_schema: Any, posts: Any, vectors: str) -> None:
    """Four at most; a name of several words has their mean; one that no vector is known of takes no place."""
    student = build(ner_schema, posts, vectors)
    some = [named(posts[0], "zebra; traffic light; person"), named(posts[1], "x"), named(posts[2], "")]
    batch = student.collate(some, SEES)
    table, row = student.words.pretrained.table, student.words.pretrained.rows
    of = lambda word: table[row(word)[0]]
    expected = torch.stack([(of("traffic") + of("light")) / 2, of("person"), *[torch.zeros(3)] * 2])
    found = batch.tensors["image.level0"]
    torch.testing.assert_close(found[0], expected)
    assert not found[1:].any()
    assert batch.tensors["image.present"].tolist() == [True, True, False]
    assert batch.counts["caption_missing"] == 1
    many = student.collate([named(posts[0], "dog;person;light;traffic;kawhi")], SEES).tensors["image.level0"]
    torch.testing.assert_close(many[0], torch.stack([of(w) for w in ("dog", "person", "light", "traffic")]))
    # The order in which they are given says nothing: neither slots nor places have weights.
    student.eval()
    said = lambda text: student(student.collate([named(posts[0], text)], SEES)).scores["emissions"]
    torch.testing.assert_close(said("dog; person"), said("person; dog"))
    assert not torch.allclose(said("dog; person"), said("dog; light"))


def test_no_object_adds_nothing(ner_schema: Any, posts: Any, vectors: str, learn: Callable[..., Output]) -> None:
    """``F = 0``: beside others that have some, where no name is known, and in a view that shows none."""
    student = build(ner_schema, posts, vectors)
    learn(student, [named(post, "dog; person") for post in posts], 3, 0.02, SEES)
    with torch.no_grad():
        emissions = lambda some, view: student(student.collate(some, view)).scores["emissions"]
        beside = emissions([named(posts[0], ""), named(posts[0], "zebra; x"), named(posts[0], "dog")], SEES)
        alone = emissions(posts[:1], View())[0]
    assert not beside.isnan().any()
    torch.testing.assert_close(beside[0], alone)
    torch.testing.assert_close(beside[1], alone)
    assert not torch.allclose(beside[2], alone)


def test_objects_by_name_decide_and_are_kept(
    ner_schema: Any, posts: Any, vectors: str, learn: Callable[..., Output], tmp_path: Path
) -> None:
    first = posts[1]
    golds = [first.gold, ner.Answer(entities=tuple(e.model_copy(update={"type": "LOC"}) for e in first.gold.entities))]
    some = [
        named(first, text).model_copy(update={"gold": gold, "id": text})
        for text, gold in zip(["a person with a dog", "a traffic light"], golds, strict=True)
    ]
    student = build(ner_schema, some, vectors)
    learn(student, some, 150, 0.02, SEES)
    swapped = [named(some[0], some[1].context["objects"]), named(some[1], some[0].context["objects"])]
    assert student.predict(some, SEES) == golds
    assert student.predict(swapped, SEES) == golds[::-1]
    student.save_pretrained(tmp_path / "kept")
    Path(vectors).unlink()
    again = OCSGA.from_pretrained(tmp_path / "kept")
    assert again.predict(swapped, SEES, return_scores=True) == student.predict(swapped, SEES, return_scores=True)


def test_without_self_attention_there_is_none(ner_schema: Any, posts: Any, vectors: str) -> None:
    names = lambda own: {n for n, _ in build(ner_schema, posts, vectors, self_attention=own).named_parameters()}
    gone = names(True) - names(False)
    assert {name.split(".")[1] for name in gone} == {"words", "objects", "objects_norm"}


def test_what_does_not_fit_is_refused(ner_schema: Any, posts: Any) -> None:
    recipe = {"task": "ner", "student": "ocsga", "data": "twitter2017", "images": True}
    recipe |= {"image_encoder": "words:caption", "hidden": 25, "attention_heads": 4}
    with pytest.raises(RecipeFault) as fault:
        check(recipe)
    assert "words:caption needs vectors" in str(fault.value)
    assert "multiple of attention_heads" in str(fault.value)
    with pytest.raises(UnsupportedView, match="objects by name need vectors"):
        OCSGA.create(OCSGAConfig(image_encoder="words:caption"), {"ner": ner_schema}, posts)
    said = OCSGAConfig(word_vectors="minilm", image_encoder="words:caption").pretrained(images=True)
    assert said == "static vectors of minilm + words:caption (frozen)"
