"""ITA: the picture as text beside the text, and the divergence of its two views."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from magister.distill import objectives
from magister.distill.recipe import check
from magister.students.ner.ita import ITA, ITAConfig
from magister.students.student import View

CONTEXT = ("tags", "caption", "ocr")


def build(backbone: str, schema: Any, **settings: Any) -> ITA:
    torch.manual_seed(0)
    settings = {"lora_rank": 4, "dropout": 0.0, "word_dropout": 0.0} | settings
    return ITA.create(ITAConfig(backbone=backbone, **settings), {"ner": schema}).eval()


def told(examples: Any, **texts: str) -> list[Any]:
    return [e.model_copy(update={"context": texts}) for e in examples]


def test_side_texts_stand_behind_the_text_and_carry_no_tags(tiny_bert: str, ner_schema: Any, posts: Any) -> None:
    student = build(tiny_bert, ner_schema)
    batch = student.collate(told(posts, ocr="json", tags="red shirt", caption="blue shirt"), View(context=CONTEXT))
    ids = batch.tensors["input_ids"][1][batch.tensors["attention_mask"][1].bool()]
    written = student.encoder.sub_tokens.tokenizer.decode(ids)
    assert written == "[CLS] kawhi leonard! [SEP] red shirt [SEP] blue shirt [SEP] json [SEP]"
    assert batch.tensors["word_mask"].sum(1).tolist() == [len(e.words) for e in posts]


def test_views_that_are_equal_do_not_diverge_and_the_teacher_gets_no_gradient(
    tiny_bert: str, ner_schema: Any, posts: Any
) -> None:
    """Where the context view is the text view, all that is left are the labels."""
    student = build(tiny_bert, ner_schema)
    recipe = check(
        {"task": "ner", "data": "d", "student": "ita", "objective": "cross_view", "context": list(CONTEXT)}
        | {"beta": 0.5, "alpha": 0.0, "backbone": tiny_bert}
    )
    view = View(context=CONTEXT)
    some = told(posts, caption="blue shirt")
    same = student.collate(some, view)
    found = objectives.apart(student, (same, student(same)), (same, student(same)), recipe, tempered=True)
    assert found["divergence"].item() == pytest.approx(0, abs=1e-6)

    # Of the divergence alone, the side texts' own view has no gradient: only its label loss moves it.
    rich, bare = student.collate(some, view), student.collate(some, View())
    teacher, pupil = student(rich), student(bare)
    teacher.scores["emissions"].retain_grad()
    pupil.scores["emissions"].retain_grad()
    objectives.apart(student, (rich, teacher), (bare, pupil), recipe, tempered=True)["divergence"].backward()
    assert teacher.scores["emissions"].grad is None
    assert pupil.scores["emissions"].grad.any()


def test_words_are_dropped_whole_and_in_training_alone(tiny_bert: str, ner_schema: Any, posts: Any) -> None:
    student = build(tiny_bert, ner_schema, word_dropout=0.5)
    rows = student.collate(posts, View()).tensors
    whole = student.fuse(rows, None).states
    student.train()
    student.encoder.eval()  # whose own dropout is none of this
    torch.manual_seed(0)
    dropped = student.fuse(rows, None).states
    gone = (dropped == 0).all(-1)
    assert 0.2 < gone.float().mean() < 0.8
    torch.testing.assert_close(dropped[~gone], whole[~gone])
