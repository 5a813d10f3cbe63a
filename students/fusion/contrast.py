"""Debiased contrastive alignment of texts and pictures, with weights for hard negatives (WSDM 2023).

Source: Zhang, Yuan, Li and Liu, WSDM 2023, with the loss of Chuang et al., NeurIPS 2020 (eq. 7 and 8) and weights as in
Robinson et al., ICLR 2021. ``N`` pairs of a text ``t_i`` and a picture ``v_i``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

#: Smaller sums of exponentials have no logarithm.
_TINY = torch.finfo(torch.float32).tiny


def debiased_contrast(
    texts: Tensor,
    pictures: Tensor,
    temperature: float,
    tau_plus: float = 0.0,
    negatives: Tensor | None = None,
    weights: Tensor | None = None,
) -> Tensor:
    """The mean over both directions of ``-log(e^{s_ii / t} / (e^{s_ii / t} + n_i g_i))``, in fp32, with

    ``g_i = max((mean_j w_ij e^{s_ij / t} - tau_plus e^{s_ii / t}) / (1 - tau_plus), e^{-1 / t})``

    over the ``n_i`` negatives ``j`` of ``i``; ``s`` are cosines. A share ``tau_plus`` of what looks like negatives is
    taken to fit after all, and what they add is taken away. Without it, and without weights, this is InfoNCE.

    Args:
        texts, pictures: ``[N, d]``.
        temperature: ``t``.
        tau_plus: prior probability that a text and a picture drawn at random fit each other.
        negatives: bool ``[N, N]``, symmetric: which pairs may count as negatives (`different`); None for all others.
            One without any teaches nothing; where there are few, the bound ``e^{-1 / t}`` may decide the loss.
        weights: ``w``, ``[N, N]``, symmetric, how much each counts; scaled to a mean of 1 over the negatives of each.
    """
    # Half precision has not the digits for a difference of exponentials.
    with torch.autocast(texts.device.type, enabled=False):
        scores = F.normalize(texts.float(), dim=1) @ F.normalize(pictures.float(), dim=1).T / temperature
        others = ~torch.eye(len(scores), dtype=torch.bool, device=scores.device)
        others = others if negatives is None else others & negatives
        counted = others.float() if weights is None else others * weights.float()
        if not others.any():
            return scores.sum() * 0.0
        both = [_one_way(one, others, counted, temperature, tau_plus) for one in (scores, scores.T)]
        return (both[0] + both[1]) / 2


def _one_way(scores: Tensor, others: Tensor, weights: Tensor, temperature: float, tau_plus: float) -> Tensor:
    """The loss of each row's own column against the others; ``scores`` are ``s / t``."""
    count, positive = others.sum(1), scores.diagonal()
    shift = 1 / temperature  # no exponent is above it: nothing overflows, however low the temperature
    exponentials = (scores - shift).exp()
    mean = (weights * exponentials).sum(1) / weights.sum(1).clamp(min=_TINY)
    unlike = (mean - tau_plus * exponentials.diagonal()) / (1 - tau_plus)
    bounded = (unlike.clamp(min=_TINY).log() + shift).clamp(min=-shift)
    losses = torch.logaddexp(positive, bounded + count.clamp(min=1).log()) - positive
    return losses[count > 0].mean()


def different(features: Tensor) -> Tensor:
    """Which pictures are not the same one, bool ``[N, N]``, by their frozen features ``[N, K, c]``.

    A text fits each copy of its picture: a repost, or the stand-in for a picture that is gone, is no negative.
    """
    flat = features.flatten(1)
    return (flat[:, None] != flat).any(-1)


def hard_weights(objects: Tensor, texts: Tensor, hardness: float) -> Tensor:
    """``w_ij = exp(hardness a_ij (1 - max(b_ij, 0)))``, ``[N, N]``: alike objects beside another text count more.

    ``a`` is the cosine of pictures' object statistics, mean and standard deviation over the objects ``[N, K, c]`` with
    the batch's mean taken off; ``b`` that of the texts ``[N, d]``. The paper counts a detector's classes instead.
    No gradient goes through.
    """
    with torch.no_grad(), torch.autocast(objects.device.type, enabled=False):
        statistics = torch.cat([objects.float().mean(1), objects.float().std(1, correction=0)], 1)
        statistics = F.normalize(statistics - statistics.mean(0), dim=1)
        said = F.normalize(texts.float(), dim=1)
        return (hardness * (statistics @ statistics.T) * (1 - (said @ said.T).clamp(min=0))).exp()
