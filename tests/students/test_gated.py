"""Gated visual attention: sums by hand, masks, and gates that are shut."""

from __future__ import annotations

import math

import pytest
import torch
from magister.students.fusion.gated import Attention, GlobalGate, RegionGate

B, T, K, HIDDEN, CHANNELS, LABELS, WIDTH = 2, 3, 4, 5, 6, 3, 7


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_attention_is_the_sum_by_hand() -> None:
    attention = Attention(HIDDEN, CHANNELS, WIDTH)
    states, others = torch.randn(B, T, HIDDEN), torch.randn(B, K, CHANNELS)
    weights, values = attention(states, others)
    query, key, value = (layer.weight.tolist() for layer in (attention.query, attention.key, attention.value))
    times = lambda matrix, vector: [sum(a * b for a, b in zip(row, vector, strict=True)) for row in matrix]
    for b in range(B):
        keys = [times(key, v) for v in others[b].tolist()]
        for i in range(T):
            asked = times(query, states[b, i].tolist())
            raised = [math.exp(sum(p * q for p, q in zip(asked, k, strict=True)) / math.sqrt(WIDTH)) for k in keys]
            assert weights[b, i].tolist() == pytest.approx([r / sum(raised) for r in raised], abs=1e-5)
        assert values[b, 0].tolist() == pytest.approx(times(value, others[b, 0].tolist()), abs=1e-5)


def test_padding_gets_no_attention_at_all() -> None:
    attention = Attention(HIDDEN, HIDDEN, WIDTH)
    states = torch.randn(1, 4, HIDDEN)
    mask = torch.tensor([[True, True, False, False]])
    weights, _ = attention(states, states, mask)
    assert torch.equal(weights[..., 2:], torch.zeros(1, 4, 2))
    short, _ = attention(states[:, :2], states[:, :2])
    torch.testing.assert_close(weights[:, :2, :2], short)
    other = states.clone()
    other[:, 2:] = 1e4  # whatever stands under the padding
    assert torch.equal(attention(other, other, mask)[0][:, :2], weights[:, :2])


def test_the_global_gate_is_its_formula_and_shut_without_a_picture() -> None:
    gate = GlobalGate(HIDDEN, CHANNELS)
    states, picture = torch.randn(B, T, HIDDEN), torch.randn(B, CHANNELS)
    found = gate(states, picture, torch.tensor([True, False]))
    w1, b, w2 = gate.token.weight[0], gate.token.bias[0], gate.picture.weight[0]
    by_hand = [sigmoid((w1 @ states[0, i] + w2 @ picture[0] + b).item()) for i in range(T)]
    assert found[0, :, 0].tolist() == pytest.approx(by_hand, abs=1e-6)
    assert torch.equal(found[1], torch.zeros(T, 1))


@pytest.mark.parametrize("kind", ["scalar", "bilinear"])
def test_the_region_gate_is_its_formula_and_shut_without_a_picture(kind: str) -> None:
    gate = RegionGate(LABELS, CHANNELS, kind)  # type: ignore[arg-type]
    labels, regions = torch.rand(B, LABELS), torch.randn(B, K, CHANNELS)
    found = gate(labels, regions, torch.tensor([True, False]))
    w7, b, w6 = gate.region.weight[0], gate.region.bias[0], gate.label.weight  # [1, A] or [c, A]
    for k in range(K):
        pushed = w6[0] @ labels[0] if kind == "scalar" else regions[0, k] @ w6 @ labels[0]
        assert found[0, k].item() == pytest.approx(sigmoid((pushed + w7 @ regions[0, k] + b).item()), abs=1e-6)
    assert torch.equal(found[1], torch.zeros(K))


def test_only_the_bilinear_gate_chooses_regions_by_label() -> None:
    """Between two sets of labels, the scalar gate moves all regions alike (before the sigmoid)."""
    regions, present = torch.randn(1, K, CHANNELS), torch.tensor([True])
    for kind, alike in (("scalar", True), ("bilinear", False)):
        gate = RegionGate(LABELS, CHANNELS, kind)  # type: ignore[arg-type]
        moved = (gate(torch.eye(3)[:1], regions, present).logit() - gate(torch.eye(3)[1:2], regions, present).logit())[
            0
        ]
        assert torch.allclose(moved, moved[:1].expand(K), atol=1e-5) == alike
