"""Attention over modalities, for each word and each dimension (Moon et al., NAACL 2018)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DimensionAttention(nn.Module):
    """``x = sum_m alpha_m * x_m`` with ``alpha = softmax_m(a)``, ``[a_1; ...; a_M] = sigmoid(W [x_1; ...; x_M] + b)``.

    ``alpha`` and ``x_m`` have ``d`` dimensions, each weighed by itself. A modality that is not there is zero to ``W``
    and leaves the softmax: the weights of the others still add up to 1. With the sigmoid, as published, no weight of
    three is below ``1 / (1 + 2e) = 0.16``: none is ever switched off. ``bounded=False`` leaves the sigmoid out.
    """

    def __init__(self, width: int, modalities: int, bounded: bool = True) -> None:
        super().__init__()
        self.bounded = bounded
        self.score = nn.Linear(modalities * width, modalities * width)

    def weights(self, parts: Tensor, present: Tensor) -> Tensor:
        """``alpha [B, T, M, d]``, 0 for a modality that is not there, of ``[B, T, M, d]`` and which there are,
        ``[B, M]``, at least one a row."""
        there = present[:, None, :, None]
        scores = self.score(parts.masked_fill(~there, 0.0).flatten(2)).view_as(parts)
        scores = scores.sigmoid() if self.bounded else scores
        return scores.float().masked_fill(~there, -torch.inf).softmax(2)

    def forward(self, parts: Tensor, present: Tensor) -> Tensor:
        """``x [B, T, d]``; see `weights`."""
        there = parts.masked_fill(~present[:, None, :, None], 0.0)
        return (self.weights(parts, present) * there).sum(2)
