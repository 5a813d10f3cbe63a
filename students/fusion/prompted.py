"""Losses that teach what a picture has to do with a text, without labels of a task (PROMU, Hu et al., ACM MM 2023).

Image-text contrast and matching (as in Li et al., NeurIPS 2021, ALBEF), and alignment with prompted soft labels (as in
Li et al., CVPR 2022, ALPRO): a frozen model that knows both texts and pictures, the prompter, says how well each of
``M`` prompts ("a picture of a dog") fits a picture, and the student is to say so, too. ``N`` pairs; all in fp32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """``[..., M]`` of vectors ``[..., c]`` and ``[M, c]``, in fp32 also under autocast: low temperatures need it."""
    with torch.autocast(a.device.type, enabled=False):
        return F.normalize(a.float(), dim=-1) @ F.normalize(b.float(), dim=-1).T


def contrast(
    texts: Tensor,
    pictures: Tensor,
    temperature: Tensor,
    matched: Tensor | None = None,
    negatives: Tensor | None = None,
) -> Tensor:
    """InfoNCE in both directions: ``-log(e^{s_ii / t} / sum_j e^{s_ij / t})`` of cosines ``s``, pairs by weight.

    Args:
        texts, pictures: ``[N, d]``.
        temperature: ``t``, learnable.
        matched: how far each pair counts as one, ``[N]``; its text and picture are negatives of others in any case.
            None: all are pairs.
        negatives: which pairs may be negatives, bool ``[N, N]`` (`contrast.different`); None for all others.
    """
    scores = cosines(texts, pictures) / temperature.float()
    if negatives is not None:
        own = torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        scores = scores.masked_fill(~(negatives | own), -torch.inf)
    losses = -(scores.log_softmax(1).diagonal() + scores.log_softmax(0).diagonal()) / 2
    weights = torch.ones_like(losses) if matched is None else matched.to(losses.dtype)
    return (weights * losses).sum() / weights.sum().clamp(min=1e-6)


def prompt_vectors(templates: Tensor) -> Tensor:
    """One vector a prompt, ``[M, c]``: the mean of its templates' vectors ``[P, M, c]`` of length 1."""
    return F.normalize(templates.float(), dim=-1).mean(0)


def soft_labels(pictures: Tensor, prompts: Tensor, temperature: float) -> Tensor:
    """``q = softmax_m(cos(v, p_m) / t)``, ``[..., M]``, of pictures ``[..., c]`` and prompts ``[M, c]``."""
    with torch.no_grad():
        return (cosines(pictures, prompts) / temperature).softmax(-1)


def sure(labels: Tensor, least: float) -> Tensor:
    """Which soft labels ``[..., M]`` say enough: the largest *probability* is ``least`` or more.

    (The release compares the index of the likeliest prompt with the threshold: it leaves out prompt 0, and nothing
    else.)
    """
    return labels.amax(-1) >= least


def soft_cross_entropy(logits: Tensor, labels: Tensor, kept: Tensor) -> Tensor:
    """Mean of ``-sum_m q_m log p_m`` over what is ``kept [...]``, of logits and soft labels ``[..., M]``; else 0."""
    losses = -(labels * logits.float().log_softmax(-1)).sum(-1)
    return (losses * kept).sum() / kept.sum().clamp(min=1)
