"""Modality attention by a plain loop, without a picture, and its switches."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from magister.students.fused import Picture
from magister.students.fusion.by_dimension import DimensionAttention
from magister.students.ner.modality_attention import ModalityAttentionConfig, ModalityTagger
from magister.tasks import ner


@pytest.mark.parametrize("bounded", [True, False])
def test_attention_by_hand(bounded: bool) -> None:
    """Each dimension by itself; the second row has no third modality, whatever its vector says."""
    torch.manual_seed(0)
    attention = DimensionAttention(2, 3, bounded).double()
    parts = torch.randn(2, 4, 3, 2, dtype=torch.double)
    present = torch.tensor([[True, True, True], [True, True, False]])
    with torch.no_grad():
        found, weights = attention(parts, present), attention.weights(parts, present)
    for row, there in ((0, 3), (1, 2)):
        for t in range(4):
            read = [float(parts[row, t, m, d]) if m < there else 0.0 for m in range(3) for d in range(2)]
            raw = [
                sum(w * x for w, x in zip(line, read, strict=True)) + bias
                for line, bias in zip(attention.score.weight.tolist(), attention.score.bias.tolist(), strict=True)
            ]
            a = [1 / (1 + math.exp(-x)) if bounded else x for x in raw]
            for d in range(2):
                exps = [math.exp(a[2 * m + d]) for m in range(there)]
                alpha = [e / sum(exps) for e in exps]
                expected = sum(alpha[m] * read[2 * m + d] for m in range(there))
                assert float(found[row, t, d]) == pytest.approx(expected, rel=1e-5)
                assert weights[row, t, :there, d].tolist() == pytest.approx(alpha, rel=1e-5)
    torch.testing.assert_close(weights.sum(2), torch.ones(2, 4, 2))
    assert not weights[1, :, 2].any()


def made(schema: ner.Schema, posts: list[ner.Example], **settings: Any) -> ModalityTagger:
    torch.manual_seed(0)
    config = ModalityAttentionConfig(
        **{"hidden": 6, "width": 8, "characters": "lstm", "image_encoder": "efficientnet-lite0", **settings}
    )
    schemas = {"ner": schema}
    levels = [(1, 5), (1, 7)]
    return ModalityTagger(config, schemas, None, levels, ModalityTagger.prepare(config, schemas, posts)).eval()


def test_a_missing_picture_gives_its_share_to_word_and_letters(ner_schema: Any, posts: list[ner.Example]) -> None:
    """The softmax is over two, not over three of which one is zero."""
    student = made(ner_schema, posts)
    tensors = student.collate(posts[:2]).tensors
    vectors, mask = student.words(tensors), tensors["mask"]
    picture = Picture([torch.randn(2, 1, 5), torch.randn(2, 1, 7)], torch.tensor([True, False]))
    fused, alone = student.before(vectors, mask, picture), student.before(vectors, mask, None)
    assert not torch.allclose(fused[0], alone[0])
    torch.testing.assert_close(fused[1], alone[1])
    word, letters = (read(part) for read, part in zip(student.read, vectors.split(student.own, 2), strict=True))
    share = (fused[1] - letters[1]) / (word[1] - letters[1])  # alpha_w where alpha_w + alpha_c = 1
    assert ((share > 1 / (1 + math.e) - 1e-3) & (share < math.e / (1 + math.e) + 1e-3)).all()


def test_without_attention_they_stand_side_by_side(ner_schema: Any, posts: list[ner.Example]) -> None:
    student = made(ner_schema, posts, attention=False, word_shapes=True)
    tensors = student.collate(posts[:2]).tensors
    vectors, mask = student.words(tensors), tensors["mask"]
    picture = Picture([torch.randn(2, 1, 5), torch.randn(2, 1, 7)], torch.tensor([True, False]))
    found = student.before(vectors, mask, picture)
    assert student.bilstm.lstm.input_size == found.shape[2] == 3 * 8
    assert found[0, :, 16:].any()
    assert not found[1, :, 16:].any()
    torch.testing.assert_close(found[0, 0, 16:], found[0, 1, 16:])  # the same picture at every word
    torch.testing.assert_close(found[..., :16], student.before(vectors, mask, None)[..., :16])


def test_a_word_without_letters_has_two_modalities(ner_schema: Any, posts: list[ner.Example]) -> None:
    student = made(ner_schema, posts, characters=None)
    assert len(student.read) == 1
    assert student.attention is not None
    assert student.attention.score.in_features == 2 * 8
    assert len(student.predict(posts)) == len(posts)
