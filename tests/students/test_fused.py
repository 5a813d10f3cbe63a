"""What every system that fuses a text with its picture must do, whatever its fusion: entities and relations."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from magister import students
from magister.students.fused import Fused, FusedConfig
from magister.students.heads.pair import PairHead
from magister.students.student import Output, View
from magister.students.system import UnsupportedView
from magister.tasks import ner, relations
from magister.tasks.images import ImageFault
from magister.tasks.task import DataFault
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from drawn import pictures_of, seen

SEES = View(images=True)


class Plain(Fused):
    """The frame alone: the text's states."""

    NAME = "plain"


def systems() -> list[tuple[str, str]]:
    """Every system of the zoo on this frame, with each of its tasks."""
    found = [(name, students.find(name)) for name in students.STUDENTS]
    return [(name, task) for name, kind in found if issubclass(kind, Fused) for task in kind.Config.tasks]


ALL = [("plain", "ner"), ("plain", "relations"), *systems()]
SEEING = [(name, task) for name, task in systems() if students.find(name).Config.sees]


def kind_of(name: str) -> Any:
    return Plain if name == "plain" else students.find(name)


def levels_of(kind: Any) -> list[tuple[int, int]]:
    """Levels as the system's image encoder would have them, but thin."""
    times = 1 + kind.Config.crops
    return [*[(times * kind.GRID**2, 8)] * kind.DEPTHS, (times, 6)]


def build(name: str, backbone: str, schemas: dict[str, Any], **settings: Any) -> Any:
    kind = kind_of(name)
    torch.manual_seed(0)
    settings = {"lora_rank": 4, "lora_alpha": 8.0, "dropout": 0.0, "image_encoder": "efficientnet-lite0"} | settings
    # Made without eyes, so that no image encoder has to be loaded; then with thin ones.
    blind = kind.create(kind.Config(backbone=backbone, **{**settings, "image_encoder": None}), schemas)
    torch.manual_seed(0)
    student = kind(
        kind.Config(backbone=backbone, **settings), schemas, blind.encoder, levels_of(kind), blind.vocabulary
    )
    student.features = pictures_of(levels_of(kind))
    return student


@pytest.fixture
def schemas(ner_schema: ner.Schema, relation_schema: relations.Schema) -> dict[str, Any]:
    return {"ner": ner_schema, "relations": relation_schema}


@pytest.fixture
def examples(posts: Any, pairs: Any) -> dict[str, Any]:
    return {"ner": posts, "relations": pairs}


@pytest.mark.parametrize(("name", "task"), ALL)
def test_overfits_texts_with_and_without_pictures(
    name: str, task: str, tiny_bert: str, schemas: Any, examples: Any, learn: Callable[..., Output]
) -> None:
    some = seen(examples[task], "1", "22", "", "333")
    student = build(name, tiny_bert, {task: schemas[task]})
    learn(student, some, 60, 0.01, SEES)
    assert student.predict(some, SEES) == [e.gold for e in some]


def alike(task: str, examples: Any) -> list[Any]:
    """One text, three pictures, and what is in it differs with the picture."""
    if task == "ner":
        first = examples["ner"][0]
        golds = [
            ner.Answer(entities=tuple(e.model_copy(update={"type": kind}) for e in first.gold.entities))
            for kind in ("PER", "LOC")
        ]
    else:
        first = examples["relations"][0]
        golds = [relations.Answer(relation=label) for label in ("lives_in", "None")]
    return seen(
        [
            first.model_copy(update={"gold": gold, "id": f"{n}"})
            for n, gold in enumerate([golds[0], golds[1], golds[0]])
        ],
        "1",
        "22",
        "333",
    )


@pytest.mark.parametrize(("name", "task"), SEEING)
def test_the_picture_decides(
    name: str, task: str, tiny_bert: str, schemas: Any, examples: Any, learn: Callable[..., Output]
) -> None:
    some = alike(task, examples)
    student = build(name, tiny_bert, {task: schemas[task]})
    learn(student, some, 150, 0.01, SEES)
    assert student.predict(some, SEES) == [e.gold for e in some]
    exchanged = seen(some, "22", "1", "22")
    assert student.predict(exchanged, SEES) == [some[1].gold, some[0].gold, some[1].gold]


def scores(student: Any, examples: Sequence[Any], view: View) -> Tensor:
    with torch.no_grad():
        found = student.eval()(student.collate(examples, view)).scores
    (name,) = {"emissions", "pair"} & found.keys()
    tensor: Tensor = found[name]
    return tensor


@pytest.mark.parametrize(("name", "task"), SEEING)
def test_without_a_picture_it_is_the_text_alone(
    name: str, task: str, tiny_bert: str, schemas: Any, examples: Any, learn: Callable[..., Output]
) -> None:
    """Beside others that have pictures, whatever these show, and in a batch or a view that has none."""
    student = build(name, tiny_bert, {task: schemas[task]})
    learn(student, seen(examples[task], "1", "22", "", "333"), 3, 0.01, SEES)
    mixed = seen(examples[task][:2], "", "22")
    other = seen(examples[task][:2], "", "4444")
    beside = scores(student, mixed, SEES)[0]
    torch.testing.assert_close(scores(student, other, SEES)[0], beside)
    width = len(beside) if task == "relations" else len(student.layout.read(mixed[0]).pieces)
    alone = scores(student, mixed[:1], SEES)[0]
    torch.testing.assert_close(beside[:width], alone[:width], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scores(student, mixed[:1], View())[0], alone, rtol=1e-4, atol=1e-5)
    assert student.collate(mixed, SEES).counts["image_missing"] == 1


@pytest.mark.parametrize(("name", "task"), ALL)
def test_padding_changes_nothing(name: str, task: str, tiny_bert: str, schemas: Any, examples: Any) -> None:
    student = build(name, tiny_bert, {task: schemas[task]})
    some = seen(examples[task], "1", "22", "", "333")
    together = scores(student, some, SEES)
    for row, example in enumerate(some):
        alone = scores(student, [example], SEES)[0]
        torch.testing.assert_close(together[row][: len(alone)], alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("name", "task"), ALL)
def test_saved_and_loaded_answers_the_same(
    name: str, task: str, tiny_bert: str, schemas: Any, examples: Any, learn: Callable[..., Output], tmp_path: Path
) -> None:
    some = seen(examples[task], "1", "22", "", "333")
    student = build(name, tiny_bert, {task: schemas[task]})
    learn(student, some, 3, 0.01, SEES)
    student.save_pretrained(tmp_path)
    again = kind_of(name).from_pretrained(tmp_path)
    again.features = student.features
    for (answer, sure), (other, other_sure) in zip(
        student.predict(some, SEES, return_scores=True), again.predict(some, SEES, return_scores=True), strict=True
    ):
        assert answer == other
        assert sure == pytest.approx(other_sure, abs=1e-5)
    assert again.config == student.config


@pytest.mark.parametrize(("name", "task"), ALL)
def test_every_trainable_weight_learns(name: str, task: str, tiny_bert: str, schemas: Any, examples: Any) -> None:
    """Each is in one group of the optimiser and gets a gradient (systems have been published that leave some out)."""
    some = seen(examples[task], "1", "22", "", "333")
    student = build(name, tiny_bert, {task: schemas[task]})
    for value in student.parameters():  # adapters begin with a factor of zeros, which hides the other's gradient
        if value.requires_grad and not value.any():
            torch.nn.init.normal_(value, std=0.02)
    grouped = [p for group in student.parameter_groups(1e-3, 1e-3) for p in group["params"]]
    trained = {n: p for n, p in student.named_parameters() if p.requires_grad}
    assert {id(p) for p in grouped} == {id(p) for p in trained.values()}
    assert len(grouped) == len(trained)
    student.train()
    prompted = replace(SEES, prompt=getattr(student, "prompt", None) is not None)
    student(student.collate(some, prompted)).loss.backward()
    assert [n for n, p in trained.items() if p.grad is None or not p.grad.any()] == []


@pytest.mark.parametrize(("name", "task"), ALL)
def test_refuses_what_it_is_not_for(name: str, task: str, tiny_bert: str, schemas: Any, examples: Any) -> None:
    student = build(name, tiny_bert, {task: schemas[task]})
    other = "relations" if task == "ner" else "ner"
    with pytest.raises(UnsupportedView, match=f"built for the task {task}"):
        student.collate(examples[other], View())
    with pytest.raises(UnsupportedView, match="reads a text"):
        student.collate(examples[task], View(text=False, images=True))
    broken = seen(examples[task], "broken", "22", "", "1")
    with pytest.raises(ImageFault):
        student.predict(broken, SEES)
    student.refuse_broken_images = False
    assert len(student.predict(broken, SEES)) == len(broken)
    assert student.given_up["image_broken"] == 1


def test_marks_stand_around_both_mentions(tiny_bert: str, schemas: Any, examples: Any) -> None:
    """Also where the tail comes first, where one mention lies in the other, and at the end of the text."""
    student = build("plain", tiny_bert, {"relations": schemas["relations"]})
    assert isinstance(student.head, PairHead)

    def written(example: Any) -> str:
        text = student.layout.read(example)
        names = {27: "<h>", 28: "</h>", 29: "<t>", 30: "</t>"}
        return " ".join(
            names.get(shape, example.text[a:b]) for shape, (a, b) in zip(text.shapes, text.spans, strict=True)
        )

    def pair(text: str, head: str, tail: str) -> Any:
        mention = lambda m: ner.Entity(text=m, type="", start=text.index(m), end=text.index(m) + len(m))
        return relations.Example(id="e", text=text, words=text.split(" "), pair=(mention(head), mention(tail)))

    text = "Kawhi Leonard of Toronto"
    assert written(pair(text, "Kawhi Leonard", "Toronto")) == "<h> Kawhi Leonard </h> of <t> Toronto </t>"
    assert written(pair(text, "Toronto", "Kawhi")) == "<t> Kawhi </t> Leonard of <h> Toronto </h>"
    assert written(pair(text, "Kawhi Leonard", "Leonard")) == "<h> Kawhi <t> Leonard </t> </h> of Toronto"
    # Half a word is marked as the whole.
    inside = pair(text, "Leon", "Toronto")
    assert written(inside) == "Kawhi <h> Leonard </h> of <t> Toronto </t>"
    assert student.collate([inside], View()).tensors["marks"].tolist() == [[1, 5]]


def test_the_marks_survive_a_text_of_several_windows(tiny_bert: str, schemas: Any, examples: Any) -> None:
    student = build("plain", tiny_bert, {"relations": schemas["relations"]}, max_tokens=16)
    words = ["Kawhi", *["of"] * 30, "Toronto"]
    text = " ".join(words)
    mention = lambda m: ner.Entity(text=m, type="", start=text.index(m), end=text.index(m) + len(m))
    example = relations.Example(id="e", text=text, words=words, pair=(mention("Kawhi"), mention("Toronto")))
    batch = student.collate([example], View())
    assert batch.counts["windows"] > 1
    assert scores(student, [example], View()).shape == (1, 3)


def test_a_pair_must_be_given_and_known(tiny_bert: str, schemas: Any, examples: Any) -> None:
    student = build("plain", tiny_bert, {"relations": schemas["relations"]})
    joint = examples["relations"][0].model_copy(update={"pair": None, "gold": None})
    with pytest.raises(DataFault, match="no pair of mentions"):
        student.predict([joint])
    strange = examples["relations"][0].model_copy(update={"gold": relations.Answer(relation="owns")})
    with pytest.raises(DataFault, match="unknown relation 'owns'"):
        student.collate([strange])


def test_one_student_serves_one_task(tiny_bert: str, schemas: Any) -> None:
    with pytest.raises(UnsupportedView, match="one task"):
        Plain.create(FusedConfig(backbone=tiny_bert), schemas)
