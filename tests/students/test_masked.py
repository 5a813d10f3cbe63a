"""The distilled masked language model: its loss by hand, and that nothing reaches the frozen side."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from magister.students.collate import Layout, Row
from magister.students.encoders import text
from magister.students.encoders.text import TextEncoder, UnsupportedBackbone
from magister.students.heads.masked import DistilledMaskedLM
from torch import Tensor

from .conftest import keep, words_tokenizer

TITLES = ["Blue cotton shirt size M machine wash", "red shirt", "green cotton shirt and Schuhe size 42"]


def encoder_of(backbone: str, lora: bool) -> TextEncoder:
    torch.manual_seed(0)
    encoder = text.load(backbone)
    if lora:
        encoder.model = text.with_lora(encoder.model, 4, 8.0, 0.0)
    return encoder.eval()


def moved(encoder: TextEncoder) -> TextEncoder:
    """The encoder after some training: every trainable weight elsewhere."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    return encoder


def rows_of(encoder: TextEncoder) -> list[Row]:
    layout = Layout(encoder)
    return [row for t in TITLES for row in layout.rows(layout.words(t), "t", question="colour")[0]]


def made(encoder: TextEncoder, backbone: str, **settings: Any) -> DistilledMaskedLM:
    settings = {"scores": "embeddings", "share": 0.3, "temperature": 2.0} | settings
    return DistilledMaskedLM(encoder, backbone, **settings)


def by_hand(tuned: Tensor, pretrained: Tensor, warm: float) -> float:
    """``T^2 * mean KL``, one sum after the other, of two lists of logits."""
    total = 0.0
    for z, frozen in zip(tuned.tolist(), pretrained.tolist(), strict=True):
        soft = [[math.exp(v / warm) for v in scores] for scores in (z, frozen)]
        q, p = ([v / sum(scores) for v in scores] for scores in soft)
        total += sum(b * math.log(b / a) for a, b in zip(q, p, strict=True))
    return warm**2 * total / len(tuned)


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_loss_by_hand(lora: bool, temperature: float, tiny_bert: str) -> None:
    encoder, pretrained = moved(encoder_of(tiny_bert, lora)), encoder_of(tiny_bert, lora=False)
    masked = made(encoder, tiny_bert, temperature=temperature)
    tensors = masked.collate(rows_of(encoder))
    inputs = tensors["input_ids"], tensors["attention_mask"], tensors["token_type_ids"]
    table = pretrained.embeddings.weight
    with torch.no_grad():
        logits = [e(*inputs)[tensors["masked"]] @ table.T for e in (encoder, pretrained)]
    expected = by_hand(*logits, temperature)
    assert expected > 0.01
    assert float(masked.loss(tensors).detach()) == pytest.approx(expected, rel=1e-3)


def test_an_untouched_backbone_has_no_loss(tiny_bert: str) -> None:
    for lora in (True, False):
        encoder = encoder_of(tiny_bert, lora)
        masked = made(encoder, tiny_bert)
        assert float(masked.loss(masked.collate(rows_of(encoder))).detach()) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("lora", [True, False])
def test_no_gradient_reaches_the_frozen_side(lora: bool, tiny_bert: str) -> None:
    """The gradient is that of a loss whose targets are plain numbers, and only what is tuned has one."""
    encoder = moved(encoder_of(tiny_bert, lora))
    masked = made(encoder, tiny_bert)
    tensors = masked.collate(rows_of(encoder))
    trained = {name: p for name, p in encoder.named_parameters() if p.requires_grad}
    masked.loss(tensors).backward()
    found = {name: p.grad.clone() for name, p in trained.items() if p.grad is not None}
    assert found
    assert all(p.grad is None for p in encoder.parameters() if not p.requires_grad)
    if not lora:
        assert all(p.grad is None and not p.requires_grad for p in masked._copy.parameters())

    encoder.zero_grad(set_to_none=True)
    pretrained = encoder_of(tiny_bert, lora=False)
    inputs = tensors["input_ids"], tensors["attention_mask"], tensors["token_type_ids"]
    table = pretrained.embeddings.weight.detach()
    numbers = torch.tensor((pretrained(*inputs)[tensors["masked"]] @ table.T / 2).softmax(-1).tolist())
    said = (encoder(*inputs)[tensors["masked"]] @ table.T / 2).log_softmax(-1)
    (4 * (numbers * (numbers.log() - said)).sum(-1).mean()).backward()
    for name, gradient in found.items():
        assert torch.allclose(gradient, trained[name].grad, atol=1e-4), name


def test_the_frozen_side_has_no_dropout_and_training_goes_on(tiny_bert: str) -> None:
    encoder = moved(encoder_of(tiny_bert, lora=True)).train()
    masked = made(encoder, tiny_bert)
    tensors = masked.collate(rows_of(encoder))
    inputs = tensors["input_ids"], tensors["attention_mask"], tensors["token_type_ids"]
    with masked._untouched() as frozen, torch.no_grad():
        assert torch.equal(frozen(*inputs), frozen(*inputs))
        assert torch.allclose(frozen(*inputs), encoder_of(tiny_bert, lora=False)(*inputs), atol=1e-6)
    assert encoder.training
    assert all(m.training for m in encoder.modules())
    with torch.no_grad():
        assert not torch.equal(encoder(*inputs), encoder(*inputs)), "the student keeps its dropout"
    masked.loss(tensors).backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in encoder.parameters()), "the adapter still learns"


def test_a_share_of_the_text_is_masked_and_nothing_else(tiny_bert: str) -> None:
    encoder = encoder_of(tiny_bert, lora=True)
    rows = rows_of(encoder)
    seen = torch.zeros(len(rows), max(len(r.ids) for r in rows), dtype=torch.bool)
    for seed in range(60):
        torch.manual_seed(seed)
        tensors = made(encoder, tiny_bert, share=0.15).collate(rows)
        hidden = tensors["masked"]
        for row, ids, own in zip(rows, tensors["input_ids"], hidden, strict=True):
            assert int(own.sum()) == max(1, round(0.15 * sum(row.text)))
            for at, before in enumerate(row.ids):
                assert int(ids[at]) == (encoder.sub_tokens.mask if own[at] else before)
                assert row.text[at] or not own[at]
        seen |= hidden
    assert torch.equal(seen, tensors["text"]), "every sub-token of a text gets its turn"


def test_the_pretrained_head_scores_where_there_is_one(tiny_bert: str, tmp_path: Path) -> None:
    from transformers import BertConfig, BertForMaskedLM

    torch.manual_seed(0)
    tokenizer = words_tokenizer()
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes)).eval()
    backbone = keep(tmp_path / "mlm", model, tokenizer)
    encoder = encoder_of(backbone, lora=True)
    masked = made(encoder, backbone, scores="head")
    tensors = masked.collate(rows_of(encoder))
    inputs = {name: tensors[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    with torch.no_grad():
        found = masked._vocabulary(encoder(*inputs.values()), encoder.embeddings.weight)
        assert torch.allclose(found, model(**inputs).logits, atol=1e-5)
    assert float(masked.loss(tensors).detach()) == pytest.approx(0.0, abs=1e-5)

    encoder = encoder_of(tiny_bert, lora=True)
    headless = made(encoder, tiny_bert, scores="head")
    with pytest.raises(UnsupportedBackbone, match=r"without the head.*masked_scores=embeddings"):
        headless.loss(headless.collate(rows_of(encoder)))


def test_a_backbone_without_a_mask_token_is_refused(tiny_gemma: str) -> None:
    with pytest.raises(UnsupportedBackbone, match=r"no mask token.*masked_weight=0"):
        made(encoder_of(tiny_gemma, lora=False), tiny_gemma)
