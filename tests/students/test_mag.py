"""The adaptation gate against its equations, written out token by token."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from magister.students.fusion.mag import AdaptationGate


@pytest.fixture
def gate() -> AdaptationGate:
    torch.manual_seed(0)
    made = AdaptationGate(hidden=6, channels=4, beta=0.7)
    torch.nn.init.normal_(made.bias)
    torch.nn.init.normal_(made.norm.weight)
    torch.nn.init.normal_(made.norm.bias)
    return made


def slowly(gate: AdaptationGate, states: torch.Tensor, cells: torch.Tensor | None) -> np.ndarray:
    """One row, with plain loops: attention over cells, gate, shift, ratio, layer norm."""
    w = {name: value.detach().double().numpy() for name, value in gate.state_dict().items()}

    def norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * weight + bias

    found = []
    for z in states.double().numpy():
        v = np.zeros(6)
        if cells is not None:
            seen = [
                w["look.1.weight"] @ norm(c, w["look.0.weight"], w["look.0.bias"]) + w["look.1.bias"]
                for c in cells.double().numpy()
            ]
            scores = np.exp([z @ k / np.sqrt(6) for k in seen])
            v = sum(s / scores.sum() * k for s, k in zip(scores, seen, strict=True))
        g = np.maximum(0, w["gate.weight"] @ np.concatenate([z, v]) + w["gate.bias"])
        h = g * (w["shift.weight"] @ v) + w["bias"]
        alpha = min(0.7 * np.linalg.norm(z) / np.linalg.norm(h), 1)
        found.append(norm(z + alpha * h, w["norm.weight"], w["norm.bias"]))
    return np.stack(found)


def test_equals_the_equations(gate: AdaptationGate) -> None:
    states, cells = torch.randn(3, 5, 6), 3 * torch.randn(3, 9, 4)
    found = gate(states, cells)
    for row in range(3):
        np.testing.assert_allclose(found[row].detach(), slowly(gate, states[row], cells[row]), atol=1e-5)
    small = gate(0.01 * states, cells)  # here the shift is cut
    np.testing.assert_allclose(small[0].detach(), slowly(gate, 0.01 * states[0], cells[0]), atol=1e-4)


def test_without_a_picture_it_is_layer_norm_up_to_the_bias(gate: AdaptationGate) -> None:
    states, cells = torch.randn(2, 5, 6), torch.randn(2, 9, 4)
    alone = gate(states)
    np.testing.assert_allclose(alone[0].detach(), slowly(gate, states[0], None), atol=1e-5)
    mixed = gate(states, cells, torch.tensor([True, False]))
    assert torch.equal(mixed[1], alone[1])
    assert not torch.allclose(mixed[0], alone[0])
    torch.nn.init.zeros_(gate.bias)
    assert torch.allclose(gate(states), gate.norm(states))


def test_is_never_no_number(gate: AdaptationGate) -> None:
    torch.nn.init.zeros_(gate.bias)
    for states in (torch.zeros(1, 2, 6), torch.full((1, 2, 6), 1e-30), torch.full((1, 2, 6), 1e15)):
        states = states.requires_grad_()
        for cells in (None, torch.zeros(1, 3, 4), torch.full((1, 3, 4), 1e6)):
            gate.zero_grad()
            found = gate(states, cells)
            found.square().sum().backward()
            assert torch.isfinite(found).all()
            assert all(torch.isfinite(p.grad).all() for p in gate.parameters() if p.grad is not None)


@given(st.integers(0, 1000), st.floats(1e-3, 1e3))
def test_a_shift_is_at_most_beta_times_the_state(seed: int, size: float) -> None:
    torch.manual_seed(seed)
    gate = AdaptationGate(hidden=6, channels=4, beta=0.5)
    gate.norm = torch.nn.Identity()  # type: ignore[assignment]
    states, cells = torch.randn(1, 4, 6), size * torch.randn(1, 3, 4)
    moved = gate(states, cells) - states
    assert (moved.norm(dim=-1) <= 0.5 * states.norm(dim=-1) * (1 + 1e-4) + 1e-5).all()
