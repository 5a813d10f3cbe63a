"""Visual attention and its gates by plain loops, what cancels in the paper's equations, nothing seen, and switches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from magister.students.encoders.words import BiLSTM
from magister.students.fused import Picture
from magister.students.fusion.region_attention import RegionAttention, VisualGate
from magister.students.ner.visual_attention import VisualAttention, VisualAttentionConfig, final
from magister.tasks import ner


def softmax(scores: list[float]) -> list[float]:
    exps = [math.exp(s) for s in scores]
    return [e / sum(exps) for e in exps]


def test_regions_are_weighed_by_the_sentence() -> None:
    torch.manual_seed(0)
    attention = RegionAttention(4, 3, 5)
    query, regions = torch.randn(2, 4), torch.randn(2, 6, 3)
    seen, weights = attention(query, regions), attention.weights(query, regions)
    assert attention.query is not None
    assert attention.key is not None
    assert attention.score is not None
    w_t, w_v, b = (x.detach().numpy() for x in (attention.query.weight, attention.key.weight, attention.key.bias))
    w_a = attention.score.weight.detach().numpy()[0]
    for row in range(2):
        q, v = query[row].numpy(), regions[row].numpy()
        expected = softmax([float(w_a @ np.tanh(w_t @ q + w_v @ v[k] + b)) for k in range(6)])
        assert weights[row].tolist() == pytest.approx(expected, rel=1e-4)
        assert seen[row].tolist() == pytest.approx((np.array(expected) @ v).tolist(), rel=1e-4, abs=1e-6)
    assert not torch.allclose(attention.weights(query + 1, regions), weights)


def test_the_equations_of_the_paper_do_not_read_the_sentence() -> None:
    """``softmax(w_a (tanh(W_t q) + tanh(W_v v)) + b_a)``, with any query, is what ``regions`` gives."""
    torch.manual_seed(0)
    attention = RegionAttention(4, 3, 5, "regions")
    assert attention.query is None
    assert attention.key is not None
    assert attention.score is not None
    query, regions, w_t, b_a = torch.randn(2, 4), torch.randn(2, 6, 3), torch.randn(5, 4), 0.7
    both = torch.tanh(query @ w_t.T)[:, None] + torch.tanh(attention.key(regions))
    printed = (attention.score(both)[..., 0] + b_a).softmax(1)
    torch.testing.assert_close(attention.weights(query, regions), printed)
    mean = RegionAttention(4, 3, 5, "mean")
    torch.testing.assert_close(mean(query, regions), regions.mean(1))
    assert not list(mean.parameters())


@pytest.mark.parametrize("gated", [True, False])
def test_gates_by_hand(gated: bool) -> None:
    torch.manual_seed(0)
    gate = VisualGate(4, 3, gated)
    states, seen = torch.randn(2, 5, 4), torch.randn(2, 3)
    found = gate(states, seen, torch.tensor([True, False])).detach().numpy()
    w, b, u = (x.detach().numpy() for x in (gate.word.weight, gate.word.bias, gate.seen.weight))
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    for t in range(5):
        h = states[0, t].numpy()
        part = [
            w[4 * i : 4 * i + 4] @ h + u[4 * i : 4 * i + 4] @ seen[0].numpy() + b[4 * i : 4 * i + 4] for i in range(3)
        ]
        m = np.tanh(part[0])
        expected = sigmoid(part[1]) * h + sigmoid(part[2]) * m if gated else h + m
        np.testing.assert_allclose(found[0, t], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found[1], states[1].numpy())


def made(schema: ner.Schema, posts: list[ner.Example], **settings: Any) -> VisualAttention:
    torch.manual_seed(0)
    config = VisualAttentionConfig(hidden=6, inner=5, image_encoder="efficientnet-lite0", **settings)
    schemas = {"ner": schema}
    levels = [(49, 8), (1, 7)]
    return VisualAttention(config, schemas, None, levels, VisualAttention.prepare(config, schemas, posts)).eval()


def test_nothing_seen_is_nothing_taken(ner_schema: Any, posts: list[ner.Example]) -> None:
    """Of an empty picture ``v_c = 0``, so that nothing of it stands in the gates; of none ``beta_v m = 0``."""
    student = made(ner_schema, posts)
    states, mask = torch.randn(2, 5, 12), torch.ones(2, 5, dtype=torch.bool)
    levels = [torch.zeros(2, 49, 8), torch.zeros(2, 1, 7)]
    fused = student.after(states, mask, Picture(levels, torch.tensor([True, False])))
    torch.testing.assert_close(fused[1], states[1], rtol=0, atol=0)
    m, own, other = student.gate.word(states[0]).chunk(3, 1)
    torch.testing.assert_close(fused[0], own.sigmoid() * states[0] + other.sigmoid() * m.tanh())


def test_one_look_a_sentence(ner_schema: Any, posts: list[ner.Example]) -> None:
    """Where it looks does not hang on the order of the regions, nor on padding behind the sentence."""
    student = made(ner_schema, posts)
    states, mask = torch.randn(1, 5, 12), torch.tensor([[True, True, True, False, False]])
    cells = torch.randn(1, 49, 8)
    picture = lambda cells: Picture([cells, torch.zeros(1, 1, 7)], torch.tensor([True]))
    found = student.after(states, mask, picture(cells))
    torch.testing.assert_close(student.after(states, mask, picture(cells.flip(1))), found)
    torch.testing.assert_close(student.after(states[:, :3], mask[:, :3], picture(cells)), found[:, :3])


def test_the_last_state_of_either_direction() -> None:
    torch.manual_seed(0)
    bilstm = BiLSTM(3, 4)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    states, last = bilstm(torch.randn(2, 3, 3), mask)
    torch.testing.assert_close(final(states, mask), last)
