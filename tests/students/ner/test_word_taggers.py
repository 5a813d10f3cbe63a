"""What every entity system on words without a transformer must do, whatever it does with the picture."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from magister import students
from magister.students.ner.words import WordTagger, WordTaggerConfig
from magister.students.student import Output, View
from magister.students.system import UnsupportedView
from magister.tasks import ner
from magister.tasks.images import ImageFault
from magister.tasks.task import DataFault
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))
from drawn import pictures_of, seen

SEES = View(images=True)
KNOWS = View(images=True, context=("knowledge",))
SMALL = {"hidden": 12, "dropout": 0.0, "word_dropout": 0.0, "characters": "lstm", "image_encoder": "efficientnet-lite0"}


class Plain(WordTagger):
    """The frame alone: a BiLSTM and a CRF."""

    NAME = "plain"


def systems() -> list[str]:
    """Every system of the zoo on this frame."""
    return [name for name in students.STUDENTS if issubclass(students.find(name), WordTagger)]


ALL = ["plain", *systems()]


def kind_of(name: str) -> Any:
    return Plain if name == "plain" else students.find(name)


def levels_of(kind: Any) -> list[tuple[int, int]]:
    """Levels as the system's image encoder would have them, but thin."""
    times = 1 + getattr(kind.Config, "crops", 0)
    return [*[(times * kind.GRID**2, 8)] * kind.DEPTHS, (times, 6)]


def build(name: str, schema: ner.Schema, examples: Sequence[Any], **settings: Any) -> Any:
    """A small one that sees: what a picture shows is drawn from the length of its source."""
    kind, levels = kind_of(name), levels_of(kind_of(name))
    config, schemas = kind.Config(**SMALL | settings), {"ner": schema}
    torch.manual_seed(0)
    student = kind(config, schemas, None, levels, kind.prepare(config, schemas, examples))

    student.features = pictures_of(levels)
    return student


def scores(student: Any, examples: Sequence[Any], view: View) -> Tensor:
    with torch.no_grad():
        found: Tensor = student.eval()(student.collate(examples, view)).scores["emissions"]
    return found


@pytest.fixture
def mixed(posts: list[ner.Example]) -> list[ner.Example]:
    return seen(posts, "1", "22", "", "333")


@pytest.mark.parametrize("name", ALL)
def test_overfits_posts_with_and_without_pictures(
    name: str, ner_schema: Any, mixed: list[ner.Example], learn: Callable[..., Output]
) -> None:
    student = build(name, ner_schema, mixed)
    learn(student, mixed, 60, 0.02, SEES)
    assert student.predict(mixed, SEES) == [e.gold for e in mixed]


@pytest.mark.parametrize("name", systems())
def test_the_picture_decides(
    name: str, ner_schema: Any, posts: list[ner.Example], learn: Callable[..., Output]
) -> None:
    """One text, three pictures, and what its names are differs with the picture."""
    first = posts[0]
    assert first.gold is not None
    golds = [
        ner.Answer(entities=tuple(e.model_copy(update={"type": kind}) for e in first.gold.entities))
        for kind in ("PER", "LOC", "PER")
    ]
    alike = [first.model_copy(update={"gold": gold, "id": f"{n}"}) for n, gold in enumerate(golds)]
    some = seen(alike, "1", "22", "333")
    student = build(name, ner_schema, some)
    learn(student, some, 150, 0.02, SEES)
    assert student.predict(some, SEES) == golds
    assert student.predict(seen(some, "22", "1", "22"), SEES) == [golds[1], golds[0], golds[1]]


@pytest.mark.parametrize("name", systems())
def test_without_a_picture_it_is_the_text_alone(
    name: str, ner_schema: Any, mixed: list[ner.Example], learn: Callable[..., Output]
) -> None:
    """Beside others that have pictures, whatever these show, and in a batch or a view that has none."""
    student = build(name, ner_schema, mixed)
    learn(student, mixed, 3, 0.01, SEES)
    some = seen(mixed[:2], "", "22")
    beside = scores(student, some, SEES)[0]
    torch.testing.assert_close(scores(student, seen(mixed[:2], "", "4444"), SEES)[0], beside)
    alone = scores(student, some[:1], SEES)[0]
    torch.testing.assert_close(beside, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scores(student, some[:1], View())[0], alone, rtol=1e-4, atol=1e-5)
    assert student.collate(some, SEES).counts["image_missing"] == 1


@pytest.mark.parametrize("view", [SEES, KNOWS], ids=["post", "side text"])
@pytest.mark.parametrize("name", ALL)
def test_padding_changes_nothing(name: str, view: View, ner_schema: Any, mixed: list[ner.Example]) -> None:
    """Nor do the side texts that stand where a longer post goes on."""
    student = build(name, ner_schema, mixed, view=view)
    together = scores(student, mixed, view)
    for row, example in enumerate(mixed):
        alone = scores(student, [example], view)[0]
        assert len(alone) == len(example.words)
        torch.testing.assert_close(together[row][: len(alone)], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_saved_and_loaded_answers_the_same(
    name: str, ner_schema: Any, mixed: list[ner.Example], learn: Callable[..., Output], tmp_path: Path
) -> None:
    student = build(name, ner_schema, mixed)
    learn(student, mixed, 3, 0.01, SEES)
    student.save_pretrained(tmp_path)
    again = kind_of(name).from_pretrained(tmp_path)
    again.features = student.features
    for (answer, sure), (other, other_sure) in zip(
        student.predict(mixed, SEES, return_scores=True), again.predict(mixed, SEES, return_scores=True), strict=True
    ):
        assert answer == other
        assert sure == pytest.approx(other_sure, abs=1e-5)
    assert again.config == student.config


@pytest.mark.parametrize("name", ALL)
def test_every_trainable_weight_learns(name: str, ner_schema: Any, mixed: list[ner.Example]) -> None:
    """Each is in one group of the optimiser and gets a gradient."""
    student = build(name, ner_schema, mixed, word_shapes=True)
    grouped = [p for group in student.parameter_groups(1e-3, 1e-3) for p in group["params"]]
    trained = {n: p for n, p in student.named_parameters() if p.requires_grad}
    assert {id(p) for p in grouped} == {id(p) for p in trained.values()}
    assert len(grouped) == len(trained)
    student.train()
    student(student.collate(mixed, SEES)).loss.backward()
    assert [n for n, p in trained.items() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize("name", ALL)
def test_refuses_what_it_is_not_for(name: str, ner_schema: Any, mixed: list[ner.Example], pairs: Any) -> None:
    student = build(name, ner_schema, mixed)
    with pytest.raises(UnsupportedView, match="built for the task ner"):
        student.collate(pairs, View())
    for view in (View(text=False, images=True), View(prompt=True), View(explain="knowledge")):
        with pytest.raises(UnsupportedView, match="reads a text"):
            student.collate(mixed, view)
    with pytest.raises(DataFault, match="its text has no words"):
        student.predict([ner.Example(id="e", text=" ")])
    broken = seen(mixed, "broken", "22", "", "1")
    with pytest.raises(ImageFault):
        student.predict(broken, SEES)
    student.refuse_broken_images = False
    assert len(student.predict(broken, SEES)) == len(broken)
    assert student.given_up["image_broken"] == 1


@pytest.mark.parametrize("name", ALL)
def test_one_that_never_sees_is_made_without_pictures(
    name: str, ner_schema: Any, posts: list[ner.Example], learn: Callable[..., Output]
) -> None:
    kind = kind_of(name)
    config = kind.Config(**SMALL | {"image_encoder": None})
    torch.manual_seed(0)
    student = kind.create(config, {"ner": ner_schema}, posts)
    learn(student, posts, 60, 0.02)
    assert student.predict(posts) == [e.gold for e in posts]
    with pytest.raises(UnsupportedView, match="cannot see"):
        student.collate(posts, SEES)


# --- the frame itself ---


def test_the_words_are_the_data_sets_own(ner_schema: Any, posts: list[ner.Example]) -> None:
    """Not those that punctuation would part; the words of side texts are known where the view reads them."""
    odd = posts[0].model_copy(update={"words": ("#NBA's", "http://t.co"), "text": "#NBA's http://t.co", "gold": None})
    student = build("plain", ner_schema, [odd], view=View(context=("knowledge",)))
    assert student.vocabulary["words"][:2] == ["#nba's", "http://t.co"]
    assert {"plays", "toronto"} <= set(student.vocabulary["words"])
    tensors = student.collate([odd]).tensors
    assert tensors["word_mask"].tolist() == [[True, True]]
    assert tensors["mask"].sum() == 2 + 1 + 4, "a break, then the knowledge"
    short = student.config.model_copy(update={"context_words": 1})
    student.config = short
    assert student.collate([odd]).counts["context_words_cut"] == 3


def test_knowledge_is_read_where_asked(ner_schema: Any, posts: list[ner.Example], learn: Callable[..., Output]) -> None:
    """What a name is only the side text tells."""

    def said(id: str, kind: str) -> ner.Example:
        name = ner.Entity(text="Oakland", type=kind, start=0, end=7)
        told = {"knowledge": f"it is a {kind}"}
        return ner.Example(id=id, text="Oakland !", context=told, gold=ner.Answer(entities=(name,)))

    some = [said("a", "PER"), said("b", "LOC")]
    student = build("plain", ner_schema, some, view=View(context=("knowledge",)))
    learn(student, some, 60, 0.02)
    assert student.predict(some) == [e.gold for e in some]
    blind = student.predict(some, View())
    assert blind[0] == blind[1]


def test_loss_and_units_are_those_of_the_posts_with_gold(ner_schema: Any, posts: list[ner.Example]) -> None:
    student = build("plain", ner_schema, posts).eval()
    bare = [post.model_copy(update={"gold": None}) for post in posts]
    assert student(student.collate(bare)).loss is None
    some = student.collate([bare[0], posts[1]])
    assert some.tensors["units"].tolist() == [len(posts[1].words)]
    torch.testing.assert_close(student(some).loss, student(student.collate([posts[1]])).loss)


def test_pictures_clash_with_none_of_them() -> None:
    recipe = type("R", (), {"images": True, "student": "plain"})
    assert list(WordTaggerConfig().clashes(recipe)) == []
    said = WordTaggerConfig(word_vectors="minilm", image_encoder="caption:minilm").pretrained(images=True)
    assert said == "static vectors of minilm + caption:minilm (frozen)"


def test_one_student_serves_one_task(relation_schema: Any, ner_schema: Any) -> None:
    for schemas in ({}, {"relations": relation_schema}, {"ner": ner_schema, "relations": relation_schema}):
        with pytest.raises(UnsupportedView, match="is for the task ner"):
            Plain.create(WordTaggerConfig(), schemas)
