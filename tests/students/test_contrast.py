"""The debiased contrast against a plain loop, against InfoNCE, and where numbers are hard to hold."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from magister.students.fusion.contrast import debiased_contrast, different, hard_weights
from torch import Tensor


def draw(seed: int, count: int, width: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator), torch.randn(count, width, generator=generator)


def slowly(texts: Tensor, pictures: Tensor, t: float, tau: float, negatives: Tensor, weights: Tensor) -> float:
    """The definition, a number at a time."""
    total = []
    for left, right in ((texts, pictures), (pictures, texts)):
        losses = []
        for i in range(len(left)):
            s = [float(F.cosine_similarity(left[i].double(), one.double(), dim=0)) for one in right]
            js = [j for j in range(len(left)) if j != i and negatives[i, j]]
            if not js:
                continue
            w = [float(weights[i, j]) for j in js]
            mean = sum(a * math.exp(s[j] / t) for a, j in zip(w, js, strict=True)) / sum(w)
            g = max((mean - tau * math.exp(s[i] / t)) / (1 - tau), math.exp(-1 / t))
            positive = math.exp(s[i] / t)
            losses.append(-math.log(positive / (positive + len(js) * g)))
        total.append(sum(losses) / len(losses))
    return sum(total) / 2


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 7), st.sampled_from([0.1, 0.5, 2.0]), st.sampled_from([0.0, 0.1, 0.6]))
def test_is_its_definition(seed: int, count: int, t: float, tau: float) -> None:
    texts, pictures = draw(seed, count)
    weights = draw(seed + 1, count, count)[0].exp()
    weights = weights + weights.T
    negatives = draw(seed + 2, count, count)[0] > -0.5
    negatives = negatives | negatives.T
    others = negatives & ~torch.eye(count, dtype=torch.bool)
    found = float(debiased_contrast(texts, pictures, t, tau, negatives, weights))
    if not others.any():
        assert found == 0
    else:
        assert found == pytest.approx(slowly(texts, pictures, t, tau, negatives, weights), rel=1e-3, abs=1e-5)


def test_without_a_prior_it_is_info_nce() -> None:
    texts, pictures = draw(0, 5)
    logits = F.normalize(texts, dim=1) @ F.normalize(pictures, dim=1).T / 0.3
    target = torch.arange(5)
    expected = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
    torch.testing.assert_close(debiased_contrast(texts, pictures, 0.3), expected)
    # Weights count relatively: any constant is none.
    torch.testing.assert_close(debiased_contrast(texts, pictures, 0.3, weights=torch.full((5, 5), 7.0)), expected)


def test_the_bound_holds_where_the_positive_outweighs_its_negatives() -> None:
    """``mean < tau_plus e^{s_ii / t}``: by hand, cosines 1 and 0, t = 1, n = 1, g = e^-1."""
    pair = torch.eye(2)
    expected = -math.log(math.e / (math.e + math.exp(-1)))
    assert float(debiased_contrast(pair, pair, 1.0, tau_plus=0.5)) == pytest.approx(expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("temperature", [0.001, 0.01, 0.1])
@pytest.mark.parametrize("tau", [0.0, 0.1])
def test_low_temperatures_neither_overflow_nor_stop(dtype: torch.dtype, temperature: float, tau: float) -> None:
    texts, pictures = draw(3, 6)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        texts = texts.to(dtype).requires_grad_()
        loss = debiased_contrast(texts, pictures, temperature, tau)
        loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert texts.grad is not None
    assert texts.grad.isfinite().all()
    assert texts.grad.any()


def test_the_same_picture_twice_is_no_negative() -> None:
    """A pair and its repost leave each other alone; two copies alone teach nothing."""
    texts, pictures = draw(4, 4)
    pictures[1] = pictures[0]
    negatives = different(pictures[:, None])
    assert (~negatives).nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 2], [3, 3]]
    found = debiased_contrast(texts, pictures, 0.5, 0.1, negatives)
    assert float(found) == pytest.approx(slowly(texts, pictures, 0.5, 0.1, negatives, torch.ones(4, 4)), rel=1e-4)
    assert not torch.isclose(found, debiased_contrast(texts, pictures, 0.5, 0.1))
    texts.requires_grad_()
    loss = debiased_contrast(texts[:2], pictures[:2], 0.5, 0.1, negatives[:2, :2])
    loss.backward()
    assert loss.item() == 0
    assert not texts.grad.any()


def test_hard_are_alike_objects_beside_another_text() -> None:
    objects = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.0, 1.1]])[:, None].repeat(1, 3, 1)
    texts = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]])
    weights = hard_weights(objects, texts, 1.0)
    assert weights[0, 1] > 2  # alike objects, other text
    assert weights[0, 2] < 0.5  # other objects, other text
    assert weights[2, 3] == pytest.approx(1)  # alike objects, the same text: no harder than any
    torch.testing.assert_close(weights, weights.T)
    torch.testing.assert_close(hard_weights(objects, texts, 0.0), torch.ones(4, 4))
    # How many there are of each counts as well: the same mean, another spread.
    spread = torch.tensor([[[1.0], [1.0]], [[0.0], [2.0]], [[1.0], [1.0]]])
    weights = hard_weights(spread, torch.eye(3), 1.0)
    assert weights[0, 2] > weights[0, 1]
