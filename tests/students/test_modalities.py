"""Fusions of modalities against their equations written out, and modalities that are not there."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from magister.students.fusion.modalities import GMU, Concat, FusionName, ModalityAttention, fusion

NAMES: tuple[FusionName, ...] = ("concat", "attention", "gmu")


@pytest.fixture
def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(4, 3), torch.randn(4, 2, 5), torch.tensor([[1, 1], [1, 0], [0, 1], [0, 0]]).bool()


def rows(linear: Any, x: list[float]) -> list[float]:
    pairs = zip(linear.weight.tolist(), linear.bias.tolist(), strict=True)
    return [sum(w * v for w, v in zip(weights, x, strict=True)) + bias for weights, bias in pairs]


def test_concat_is_two_layers(inputs: Any) -> None:
    query, modalities, present = inputs
    made = Concat(3, 5, 2)
    for i in range(4):
        there = [x if present[i, m] else 0.0 for m in range(2) for x in modalities[i, m].tolist()]
        inner = [max(0.0, x) for x in rows(made.layers[0], query[i].tolist() + there)]
        torch.testing.assert_close(made(*inputs)[i], torch.tensor(rows(made.layers[2], inner)))


def test_attention_is_a_softmax_over_modalities(inputs: Any) -> None:
    query, modalities, present = inputs
    made = ModalityAttention(3, 5, 2)
    for i in range(4):
        scores = {
            m: math.exp(rows(made.scores[m], query[i].tolist() + modalities[i, m].tolist())[0])
            for m in range(2)
            if present[i, m]
        }
        expected = sum((s / sum(scores.values()) * modalities[i, m] for m, s in scores.items()), torch.zeros(5))
        torch.testing.assert_close(made(*inputs)[i], expected)
    weights = made.weights(*inputs)
    torch.testing.assert_close(weights.sum(1), torch.tensor([1.0, 1.0, 1.0, 0.0]))
    torch.testing.assert_close(weights[1], torch.tensor([1.0, 0.0]))


def test_the_query_decides_the_attention(inputs: Any) -> None:
    query, modalities, present = inputs
    made = ModalityAttention(3, 5, 2)
    assert not torch.allclose(made.weights(query, modalities, present)[0], made.weights(-query, modalities, present)[0])


def test_gmu_is_a_gate_by_dimension(inputs: Any) -> None:
    query, modalities, _ = inputs
    made = GMU(3, 5)
    both = torch.ones(4, 2, dtype=torch.bool)
    for i in range(4):
        text, seen = modalities[i].tolist()
        gate = [1 / (1 + math.exp(-x)) for x in rows(made.gate, seen + text)]
        expected = [
            z * math.tanh(v) + (1 - z) * math.tanh(t)
            for z, v, t in zip(gate, rows(made.seen, seen), rows(made.text, text), strict=True)
        ]
        torch.testing.assert_close(made(query, modalities, both)[i], torch.tensor(expected))
    alone = made(query, modalities, torch.tensor([[True, False]] * 4))
    torch.testing.assert_close(alone, made.text(modalities[:, 0]).tanh())


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_there_takes_no_part(name: FusionName, inputs: Any) -> None:
    query, modalities, present = inputs
    made = fusion(name, 3, 5)
    noise = modalities.masked_fill(~present[..., None], torch.nan).requires_grad_()
    torch.testing.assert_close(made(query, noise, present), made(query, modalities, present))
    made(query, noise, present).sum().backward()
    assert noise.grad is not None
    assert noise.grad[~present].eq(0).all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in made.parameters())


def test_gmu_has_two_modalities() -> None:
    with pytest.raises(ValueError, match="two modalities, not 3"):
        GMU(3, 5, 3)
