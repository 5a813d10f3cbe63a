"""DebiasCL: when the contrast counts, between what, and its switches."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from magister.distill.recipe import RecipeFault, check
from magister.students.encoders.text import UnsupportedBackbone
from magister.students.fusion.contrast import debiased_contrast
from magister.students.ner.debiascl import DebiasCL, DebiasCLConfig
from magister.students.student import Output, View
from magister.tasks.images import Image

LEVELS = [(5, 6)]
SEES = View(images=True)


def build(backbone: str, schema: Any, **settings: Any) -> DebiasCL:
    settings = {"lora_rank": 0, "dropout": 0.0, "inner": 16, "contrast_width": 8} | settings
    encoder = DebiasCL.create(DebiasCLConfig(backbone=backbone, **settings), {"ner": schema}).encoder
    torch.manual_seed(0)
    config = DebiasCLConfig(backbone=backbone, image_encoder="efficientnet-lite0", **settings)
    student = DebiasCL(config, {"ner": schema}, encoder, LEVELS)
    drawn = lambda image: torch.randn(*LEVELS[0], generator=torch.Generator().manual_seed(len(image.source)))
    student.features = lambda images: [torch.stack([drawn(image) for image in images])]
    student.encoder.eval()
    return student


def said(student: DebiasCL, posts: Any, *sources: str, view: View = SEES) -> Output:
    shown = [
        e.model_copy(update={"images": (Image(source=s),) if s else ()}) for e, s in zip(posts, sources, strict=True)
    ]
    output = student(student.collate(shown, view))
    assert isinstance(output, Output)
    return output


def test_the_contrast_is_that_of_the_rows_with_pictures(tiny_bert: str, ner_schema: Any, posts: Any) -> None:
    student = build(tiny_bert, ner_schema, contrast=0.5, hardness=0.0)
    student.train()
    student.encoder.eval()
    output = said(student, posts, "1", "22", "", "333")
    assert output.loss.item() == pytest.approx(output.losses["ner"].item() + output.losses["contrast"].item())
    rows, texts, objects = [0, 1, 3], [], []
    for row in rows:
        tensors = student.collate([posts[row]], View()).tensors
        texts.append(student.encode(tensors)[0][tensors["text"][0]].mean(0))
        picture = student.features([Image(source=" " * (rows.index(row) + 1))])[0][0]
        objects.append(student.look(picture[1:]).mean(0))
    expected = debiased_contrast(
        student.text_space(torch.stack(texts)), student.picture_space(torch.stack(objects)), 0.2, 0.1
    )
    assert output.losses["contrast"].item() == pytest.approx(0.5 * expected.item(), rel=1e-4)
    # Fewer than two pictures, or one picture twice, have nothing to be compared with.
    assert said(student, posts, "1", "", "", "").losses["contrast"].item() == 0
    assert said(student, posts, "1", "1", "", "").losses["contrast"].item() == 0
    assert "contrast" not in said(student, posts, "", "", "", "").losses
    student.eval()
    assert "contrast" not in said(student, posts, "1", "22", "", "333").losses


def test_switches(tiny_bert: str, ner_schema: Any, posts: Any) -> None:
    off = build(tiny_bert, ner_schema, contrast=0.0).train()
    assert said(off, posts, "1", "22", "", "333").losses.keys() == {"ner"}
    assert not [name for name, _ in off.named_parameters() if "space" in name]
    # Without cross-attention a picture teaches, and says nothing.
    alone = build(tiny_bert, ner_schema, cross_attention=False)
    alone.train()
    assert said(alone, posts, "1", "22", "", "333").losses["contrast"] > 0
    alone.eval()
    torch.testing.assert_close(
        said(alone, posts, "1", "22", "", "333").scores["emissions"],
        said(alone, posts, "", "", "", "", view=View()).scores["emissions"],
    )
    hard, plain = (build(tiny_bert, ner_schema, hardness=h).train() for h in (2.0, 0.0))
    losses = [said(one, posts, "1", "22", "", "333").losses["contrast"].item() for one in (hard, plain)]
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)


def test_the_contrast_brings_text_and_picture_together(tiny_bert: str, ner_schema: Any, posts: Any, learn: Any) -> None:
    student = build(tiny_bert, ner_schema, contrast=1.0)
    some = [e.model_copy(update={"images": (Image(source="x" * n),)}) for n, e in enumerate(posts, 1)]
    learn(student, some, 40, 0.01, SEES)
    with torch.no_grad():
        batch = student.collate(some, SEES)
        tensors, picture = batch.tensors, student.seen(batch.tensors, batch.tensors["example"])
        own = tensors["text"][..., None].float()
        texts = student.text_space((student.encode(tensors) * own).sum(1) / own.sum(1))
        pictures = student.picture_space(student.look(picture.levels[-1][:, 1:]).mean(1))
    cosines = F.normalize(texts, dim=1) @ F.normalize(pictures, dim=1).T
    assert cosines.argmax(1).tolist() == [0, 1, 2, 3]
    assert cosines.argmax(0).tolist() == [0, 1, 2, 3]


def test_what_does_not_fit_is_refused(tiny_bert: str, ner_schema: Any) -> None:
    recipe = {"task": "ner", "student": "debiascl", "data": "twitter2017", "images": True}
    recipe |= {"image_encoder": "efficientnet-lite0", "contrast": 0.0, "cross_attention": False}
    with pytest.raises(RecipeFault, match="leave the pictures no part"):
        check(recipe)
    with pytest.raises(UnsupportedBackbone, match="do not divide"):
        build(tiny_bert, ner_schema, attention_heads=3)
