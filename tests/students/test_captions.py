"""Captions that stand for pictures, against states and means computed one by one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from magister.models.packaged import ModelNotFound
from magister.students.encoders import text
from magister.students.encoders.captions import CaptionEncoder
from magister.students.encoders.sight import sight
from magister.students.fused import Fused, FusedConfig
from magister.students.student import View
from torch import Tensor


def pooled(words: Tensor, cells: int) -> list[Tensor]:
    """Cell ``i`` of ``n`` words is the mean of words ``floor(i n / cells)`` to ``ceil((i + 1) n / cells)``."""
    n = len(words)
    return [words[i * n // cells : math.ceil((i + 1) * n / cells)].mean(0) for i in range(cells)]


@pytest.mark.parametrize("caption", ["red", "off to Oakland with the Toronto Raptors !"])
def test_cells_are_means_of_even_pieces(tiny_bert: str, caption: str) -> None:
    made = sight(f"caption:{tiny_bert}", grid=2, depths=2, crops=2)
    assert isinstance(made, CaptionEncoder)
    assert made.levels == [(12, 32), (12, 32), (3, 32)]
    levels = made.encode([caption, "red green blue"])
    backbone = text.load(tiny_bert).eval()
    ids = torch.tensor([[backbone.sub_tokens.first, *backbone.sub_tokens.text(caption), backbone.sub_tokens.separator]])
    with torch.no_grad():
        states = backbone.plain(input_ids=ids, output_hidden_states=True).hidden_states
    for level, depth in enumerate((1, 2)):
        words = states[depth][0, 1:-1]
        n = len(words)
        parts = [words, words[: math.ceil(n / 2)], words[n // 2 :]]
        expected = torch.stack([cell for part in parts for cell in pooled(part, 4)])
        torch.testing.assert_close(levels[level][0], expected, rtol=2e-3, atol=2e-3)  # kept in half precision
        if depth == 2:
            means = torch.stack([part.mean(0) for part in parts])
            torch.testing.assert_close(levels[2][0], means, rtol=2e-3, atol=2e-3)


def test_a_caption_is_read_once(tiny_bert: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = CaptionEncoder(f"caption:{tiny_bert}", 1, 1)
    first = made.encode(["red shirt", "red shirt"])
    monkeypatch.setattr(made, "_read", lambda caption: pytest.fail("read again"))
    assert torch.equal(made.encode(["red shirt"])[0][0], first[0][1])


def test_a_long_caption_is_read_as_far_as_the_encoder_reads(tiny_bert: str) -> None:
    made = CaptionEncoder(f"caption:{tiny_bert}", 2, 1)
    assert made.encode(["red " * 500])[0].shape == (1, 4, 32)


def test_a_student_sees_captions_and_counts_those_that_miss(tiny_bert: str, posts: Any, ner_schema: Any) -> None:
    class Plain(Fused):
        NAME = "plain"

    config = FusedConfig(backbone=tiny_bert, lora_rank=0, image_encoder=f"caption:{tiny_bert}")
    student = Plain.create(config, {"ner": ner_schema})
    told = [posts[0].model_copy(update={"context": {"caption": "a red shirt"}}), posts[1]]
    batch = student.collate(told, View(images=True))
    assert batch.counts["caption_missing"] == 1
    assert batch.tensors["image.present"].tolist() == [True, False]
    assert batch.tensors["image.level0"][0].any()
    assert not batch.tensors["image.level0"][1].any()
    assert config.pretrained(images=True).endswith(f"caption:{tiny_bert} (frozen)")


def test_an_unknown_encoder_is_told_what_there_is() -> None:
    with pytest.raises(ModelNotFound, match="caption:TEXT_ENCODER"):
        sight("nothing", 2, 1)
