"""Losses of pre-training against loops, torch's own cross entropy, and another contrast of the house."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from magister.students.fusion.contrast import debiased_contrast, different
from magister.students.fusion.prompted import contrast, prompt_vectors, soft_cross_entropy, soft_labels, sure


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_contrast_is_a_loop_over_pairs() -> None:
    texts, pictures, t = drawn(5, 8), drawn(5, 8, seed=1), 0.3
    matched = torch.tensor([1.0, 0, 1, 0.5, 1])
    score = lambda i, j: float(F.cosine_similarity(texts[i], pictures[j], 0)) / t
    total = 0.0
    for i in range(5):
        by_text = math.log(sum(math.exp(score(i, j)) for j in range(5))) - score(i, i)
        by_picture = math.log(sum(math.exp(score(j, i)) for j in range(5))) - score(i, i)
        total += float(matched[i]) * (by_text + by_picture) / 2
    found = contrast(texts, pictures, torch.tensor(t), matched)
    assert float(found) == pytest.approx(total / float(matched.sum()), rel=1e-4)
    assert float(contrast(texts, pictures, torch.tensor(t), torch.zeros(5))) == 0.0


def test_contrast_without_debiasing_and_with_shared_pictures() -> None:
    texts, pictures = drawn(4, 8), drawn(4, 8, seed=1)
    pictures[3] = pictures[1]
    negatives = different(pictures[:, None])
    temperature = torch.tensor(0.2)
    found = contrast(texts, pictures, temperature, negatives=negatives)
    assert float(found) == pytest.approx(float(debiased_contrast(texts, pictures, 0.2, negatives=negatives)), rel=1e-4)
    assert float(contrast(texts[:1], pictures[:1], temperature)) == 0.0  # one pair has nothing to be told from


def test_soft_labels_are_probabilities_that_teach_and_are_not_taught() -> None:
    pictures, prompts = drawn(2, 3, 6).requires_grad_(), drawn(10, 6, seed=1)
    labels = soft_labels(pictures, prompts, 0.1)
    assert labels.shape == (2, 3, 10)
    torch.testing.assert_close(labels.sum(-1), torch.ones(2, 3))
    assert not labels.requires_grad
    scores = torch.stack([F.cosine_similarity(pictures[1, 2], p, 0) for p in prompts]) / 0.1
    torch.testing.assert_close(labels[1, 2], scores.softmax(0).detach())
    nearer = soft_labels(pictures, prompts, 0.01)
    assert (nearer.amax(-1) > labels.amax(-1)).all()


def test_what_is_sure_is_so_by_its_probability() -> None:
    """Not by the number of the likeliest prompt: the first prompt may be sure, and the last may not."""
    first = torch.tensor([0.9] + [0.1 / 9] * 9)
    last = torch.tensor([0.1] * 9 + [0.1001])
    edge = torch.tensor([0.2] + [0.8 / 9] * 9)
    assert sure(torch.stack([first, last, edge]), 0.2).tolist() == [True, False, True]


def test_soft_cross_entropy_is_torchs_over_what_is_kept() -> None:
    logits, labels = drawn(4, 7), drawn(4, 7, seed=1).softmax(-1)
    kept = torch.tensor([True, False, True, True])
    expected = F.cross_entropy(logits[kept], labels[kept])
    torch.testing.assert_close(soft_cross_entropy(logits, labels, kept), expected)
    assert soft_cross_entropy(logits, labels, torch.zeros(4, dtype=torch.bool)) == 0.0
    least = soft_cross_entropy(labels.log(), labels, kept)
    entropy = -(labels * labels.log()).sum(-1)[kept].mean()
    torch.testing.assert_close(least, entropy)


def test_templates_are_averaged() -> None:
    vectors = torch.tensor([[[3.0, 0]], [[0, 0.5]]])  # two templates of one prompt
    torch.testing.assert_close(prompt_vectors(vectors), torch.tensor([[0.5, 0.5]]))
