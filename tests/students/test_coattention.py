"""Co-attention: rows without anything to attend to, and the order of its parts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from magister.students.fusion.coattention import Attend, Block, CoAttention
from torch import nn

R, T, K, D = 3, 5, 4, 8


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def perturbed(module: nn.Module) -> nn.Module:
    """LayerNorm's gains and biases begin at 1 and 0, which hides what they do."""
    for value in module.parameters():
        nn.init.normal_(value, std=0.3)
    return module.eval()


def test_a_row_without_objects_gets_nothing() -> None:
    """All masked: neither NaN, nor an average of padding, nor LayerNorm's bias; and its gradients are numbers."""
    layer = perturbed(CoAttention(D, 2, 0.0))
    words, objects = torch.randn(R, T, D, requires_grad=True), torch.randn(R, K, D)
    there = torch.tensor([[True, True, False, False], [False] * 4, [True] * 4])
    found = layer(words, torch.ones(R, T, dtype=torch.bool), objects, there)
    assert (found[1] == 0).all()
    assert found[[0, 2]].abs().amin(dim=(1, 2)).gt(0).all()
    other = objects.clone()
    other[0, 2:], other[1] = 100.0, -100.0
    torch.testing.assert_close(layer(words, torch.ones(R, T, dtype=torch.bool), other, there), found)
    found.sum().backward()
    assert words.grad is not None
    assert words.grad.isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in layer.parameters())


@pytest.mark.parametrize("own", [True, False])
def test_it_is_its_equations(own: bool) -> None:
    """By hand, with one head: ``softmax(q k / sqrt(d)) v`` and the published residuals."""
    layer = perturbed(CoAttention(D, 1, 0.0, own))
    words, objects = torch.randn(1, T, D), torch.randn(1, K, D)

    def attend(part: Attend, states: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        wq, wk, wv = part.attention.in_proj_weight.chunk(3)
        bq, bk, bv = part.attention.in_proj_bias.chunk(3)
        scores = (states @ wq.T + bq) @ (memory @ wk.T + bk).transpose(1, 2) / D**0.5
        return part.attention.out_proj(scores.softmax(-1) @ (memory @ wv.T + bv))

    feed = lambda part, x: part[3](F.relu(part[0](x)))
    x, o = words, objects
    if own:
        x = layer.words.attend_norm(x + attend(layer.words.attend, x, x))
        x = layer.words.feed_norm(x + feed(layer.words.feed, x))
        o = layer.objects_norm(o + attend(layer.objects, o, o))
    expected = layer.feed_norm(feed(layer.feed, layer.guided_norm(attend(layer.guided, x, o))))
    every = torch.ones(1, T, dtype=torch.bool), torch.ones(1, K, dtype=torch.bool)
    torch.testing.assert_close(layer(words, every[0], objects, every[1]), expected, rtol=1e-4, atol=1e-5)


def test_a_block_without_memory_is_one_whose_memory_is_masked() -> None:
    block, words, memory = perturbed(Block(D, 2, 16, 0.0)), torch.randn(R, T, D), torch.randn(R, K, D)
    none = torch.zeros(R, K, dtype=torch.bool)
    torch.testing.assert_close(block(words, memory, none), block(words, None, None))
