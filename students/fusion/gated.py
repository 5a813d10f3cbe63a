"""Gated visual attention: what tokens take from image regions, and how much of it (M-JAVE, Zhu et al., EMNLP 2020).

``B`` texts of ``T`` tokens, ``K`` regions of a picture. Where a text has no picture every gate is exactly 0, so that
what is added to its states is exactly 0, too.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn


class Attention(nn.Module):
    """``beta_ik = softmax_k((W_q h_i) . (W_k v_k) / sqrt(D))`` and the values ``W_v v_k`` that it weighs.

    One head, no output layer. Over a text's own tokens it is self-attention. The authors' release leaves the softmax
    out; with it, padding must be masked.
    """

    def __init__(self, hidden: int, channels: int, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(hidden, width, bias=False)
        self.key = nn.Linear(channels, width, bias=False)
        self.value = nn.Linear(channels, width, bias=False)

    def forward(self, states: Tensor, others: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Weights ``[B, T, K]``, 0 where ``mask [B, K]`` is false, and values ``[B, K, D]``."""
        scores = self.query(states) @ self.key(others).transpose(1, 2) / self.query.out_features**0.5
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None], -torch.inf)
        return scores.float().softmax(-1), self.value(others)


class GlobalGate(nn.Module):
    """``g_i = sigmoid(w_1 . h_i + w_2 . v_G + b)``: how much each token takes from the picture."""

    def __init__(self, hidden: int, channels: int) -> None:
        super().__init__()
        self.token = nn.Linear(hidden, 1)
        self.picture = nn.Linear(channels, 1, bias=False)

    def forward(self, states: Tensor, picture: Tensor, present: Tensor) -> Tensor:
        """``[B, T, 1]`` of states ``[B, T, d]``, pictures' vectors ``[B, c]`` and which there are, ``[B]``."""
        gate = (self.token(states) + self.picture(picture)[:, None]).sigmoid()
        return gate * present[:, None, None]


class RegionGate(nn.Module):
    """How far each region is let through, given the probabilities ``y`` of some labels.

    ``scalar``, as published: ``r_k = sigmoid(w_6 . y + w_7 . v_k + b)``. The labels are one number here, the same for
    all regions: they open or close the whole picture. ``bilinear`` lets them choose among regions, as the paper's text
    has it: ``r_k = sigmoid(y^T W v_k + w_7 . v_k + b)``.
    """

    def __init__(self, labels: int, channels: int, kind: Literal["scalar", "bilinear"]) -> None:
        super().__init__()
        self.bilinear = kind == "bilinear"
        self.label = nn.Linear(labels, channels if self.bilinear else 1, bias=False)
        self.region = nn.Linear(channels, 1)

    def forward(self, labels: Tensor, regions: Tensor, present: Tensor) -> Tensor:
        """``[B, K]`` of labels' probabilities ``[B, A]``, regions ``[B, K, c]`` and which pictures exist, ``[B]``."""
        wanted = self.label(labels)
        if self.bilinear:
            wanted = (regions @ wanted[..., None])[..., 0]
        return (wanted + self.region(regions)[..., 0]).sigmoid() * present[:, None]
