"""UMGF: which nodes its graph has, which edges, and its switches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from magister import students
from magister.distill.recipe import RecipeFault, check
from magister.students.ner.umgf import UMGF, UMGFConfig
from magister.students.student import View
from magister.tasks.images import Image
from torch import Tensor

LEVELS = [(5, 6)]
SEES = View(images=True)


def build(backbone: str, schema: Any, **settings: Any) -> UMGF:
    settings = {"lora_rank": 0, "dropout": 0.0, "width": 16, "inner": 16} | settings
    encoder = UMGF.create(UMGFConfig(backbone=backbone, **settings), {"ner": schema}).encoder
    torch.manual_seed(0)
    config = UMGFConfig(backbone=backbone, image_encoder="efficientnet-lite0", **settings)
    return UMGF(config, {"ner": schema}, encoder, LEVELS).eval()


def emissions(student: UMGF, example: Any, level: Tensor) -> Tensor:
    shown = example.model_copy(update={"images": (Image(source="1"),)})
    student.features = lambda images: [level.expand(len(images), -1, -1)]
    with torch.no_grad():
        found: Tensor = student(student.collate([shown], SEES)).scores["emissions"]
    return found


@pytest.mark.parametrize(("objects", "reads"), [("parts", [1, 2, 3, 4]), ("whole", [0])])
def test_its_nodes_are_the_four_parts_or_the_whole(
    tiny_bert: str, ner_schema: Any, posts: Any, objects: str, reads: list[int]
) -> None:
    student = build(tiny_bert, ner_schema, objects=objects)
    level = torch.randn(1, *LEVELS[0])
    plain = emissions(student, posts[0], level)
    for part in range(5):
        other = level.clone()
        other[:, part] = torch.randn(6)
        assert torch.allclose(emissions(student, posts[0], other), plain, atol=1e-6) == (part not in reads)
    # Objects have no order.
    shuffled = torch.cat([level[:, :1], level[:, 1:].flip(1)], 1)
    torch.testing.assert_close(emissions(student, posts[0], shuffled), plain)


def test_edges_lead_to_the_text_alone(tiny_bert: str, ner_schema: Any, posts: Any, monkeypatch: Any) -> None:
    """The marks around it and the side text behind it are linked to words only."""
    student = build(tiny_bert, ner_schema)
    links = []
    monkeypatch.setattr(student.layers[0], "forward", lambda *given: links.append(given[3]) or (given[0], given[2]))
    examples = [e.model_copy(update={"images": (Image(source="1"),)} if e.id != "c" else {}) for e in posts[:3]]
    student.features = lambda images: [torch.randn(len(images), *LEVELS[0])]
    batch = student.collate(examples, View(context=("knowledge",), images=True))
    student(batch)
    expected = batch.tensors["text"] & torch.tensor([[True], [True], [False]])
    assert (links[0] == expected[..., None]).all()
    assert links[0].shape[2] == 4
    assert (batch.tensors["attention_mask"].bool() & ~batch.tensors["text"]).any()


def test_no_weight_is_made_that_nothing_reads(tiny_bert: str, ner_schema: Any) -> None:
    """In the last layer the objects send, and take nothing; without gates there are none."""
    student = build(tiny_bert, ner_schema, layers=3)
    assert [layer.objects is None for layer in student.layers] == [False, False, True]
    bare = build(tiny_bert, ner_schema, gates=False)
    assert not [name for name, _ in bare.named_parameters() if ".messages." in name]
    assert student.head.linear.in_features == 32 + 16  # [BERT; X]


def test_what_does_not_fit_is_refused() -> None:
    recipe = {"task": "ner", "student": "umgf", "data": "twitter2017", "width": 30, "attention_heads": 4}
    with pytest.raises(RecipeFault, match="multiple of attention_heads"):
        check(recipe)
    with pytest.raises(RecipeFault, match="not relations"):
        check(recipe | {"task": "relations", "data": "mnre", "width": 32})
    assert students.describe("umgf").startswith("UMGF:")
