"""Graph fusion against plain loops: messages along edges, attention without values, and what padding must not do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from magister.students.fusion.graph import BareAttention, GraphLayer, Messages, linked, part_vectors

R, T, K, D = 2, 5, 4, 8


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("gates", [True, False])
def test_messages_are_the_sum_over_edges(gates: bool) -> None:
    layer, own, others = Messages(D, gates), torch.randn(R, T, D), torch.randn(R, K, D)
    links = torch.rand(R, T, K) < 0.5
    found = layer(own, others, links).detach().numpy()
    expected = np.zeros((R, T, D))
    for r in range(R):
        for i in range(T):
            for j in range(K):
                if links[r, i, j]:
                    gate = 1.0
                    if gates:
                        weight = torch.cat([layer.own.weight, layer.other.weight], 1).detach().numpy()
                        both = np.concatenate([own[r, i].numpy(), others[r, j].numpy()])
                        gate = 1 / (1 + np.exp(-(weight @ both + layer.own.bias.detach().numpy())))
                    expected[r, i] += gate * others[r, j].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_objects_attend_with_themselves_as_values() -> None:
    layer, nodes = BareAttention(D, 2), torch.randn(R, K, D)
    query, key = layer.query(nodes), layer.key(nodes)
    found = layer(nodes)
    for r in range(R):
        for head in range(2):
            own = slice(head * D // 2, (head + 1) * D // 2)
            weights = (query[r, :, own] @ key[r, :, own].T / (D // 2) ** 0.5).softmax(-1)
            torch.testing.assert_close(found[r, :, own], weights @ nodes[r, :, own])


def test_padding_and_rows_without_objects_take_no_part() -> None:
    """Edges are masked at padding in both directions, so that words behind the mask change neither side."""
    layers = [GraphLayer(D, 2, 16, 0.0), GraphLayer(D, 2, 16, 0.0, last=True)]
    words, objects = torch.randn(R, T, D), torch.randn(R, K, D)
    mask = torch.tensor([[True] * 3 + [False] * 2, [True] * T])
    links = linked(mask, torch.tensor([True, False]), K)
    assert links.sum().item() == 3 * K

    def run(words: torch.Tensor, objects: torch.Tensor | None) -> torch.Tensor:
        for layer in layers:
            words, objects = layer(words, mask, objects, links)
        return words

    found = run(words, objects)
    other = words.clone()
    other[0, 3:] = 100 * torch.randn(2, D)
    torch.testing.assert_close(run(other, objects)[0, :3], found[0, :3])
    # The row without a picture, whatever lies in its objects' place, and without objects at all.
    torch.testing.assert_close(run(words, 100 * objects)[1], found[1])
    torch.testing.assert_close(run(words, None)[1], found[1])
    assert not torch.allclose(run(words, None)[0, :3], found[0, :3])


def test_per_word_does_not_grow_with_the_text() -> None:
    """Of words that are all alike an object takes as much as of one of them."""
    one, objects = torch.randn(1, 1, D), torch.randn(1, K, D)
    took = []
    for per_word in (True, False):
        layer = GraphLayer(D, 2, 16, 0.0, per_word=per_word)
        for count in (1, 7):
            words, mask = one.expand(1, count, D), torch.ones(1, count, dtype=torch.bool)
            took.append(layer(words, mask, objects, linked(mask, torch.ones(1, dtype=torch.bool), K))[1])
    torch.testing.assert_close(took[0], took[1])
    assert not torch.allclose(took[2], took[3])


def test_each_part_is_the_mean_of_its_cells() -> None:
    level = torch.arange(2.0 * 3 * 4).view(1, 12, 2)  # the whole and two parts, four cells each
    expected = torch.stack([level[:, 4 * n : 4 * n + 4].mean(1) for n in range(3)], 1)
    torch.testing.assert_close(part_vectors(level, 2), expected)
