"""Multimodal adaptation gate: each token's state is shifted by what the token sees of a picture, never by much.

Source: Rahman et al. (ACL 2020), section 3, with the text-to-image attention of MXT (Khandelwal et al., ACL 2023).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: What keeps the ratio of two norms a number.
_TINY = 1e-6


class AdaptationGate(nn.Module):
    """``Z' = LayerNorm(Z + alpha H)`` of token states ``Z`` and their visual vectors ``V``, where

    ``g = ReLU(W_g [Z; V] + b_g)``, ``H = g * (W_h V) + b_h``, ``alpha = min(beta |Z| / |H|, 1)``.

    Without a picture ``V`` is 0, and a token is shifted by ``b_h`` alone.

    Args:
        hidden: width of the states.
        channels: width of the picture's cells.
        beta: how long, beside the state, its shift may be at most.
    """

    def __init__(self, hidden: int, channels: int, beta: float) -> None:
        super().__init__()
        self.beta = beta
        self.look = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, hidden))
        self.gate = nn.Linear(2 * hidden, hidden)
        self.shift = nn.Linear(hidden, hidden, bias=False)
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.norm = nn.LayerNorm(hidden)

    def forward(self, states: Tensor, cells: Tensor | None = None, present: Tensor | None = None) -> Tensor:
        """Shifted states ``[R, T, d]``.

        Args:
            states: ``[R, T, d]``.
            cells: the map of each row's picture ``[R, M, channels]``; None where no row has one.
            present: which rows have one ``[R]``; None for all.
        """
        seen = torch.zeros_like(states) if cells is None else self.attend(states, cells)
        if present is not None:
            seen = seen * present[:, None, None]
        return self.adapt(states, seen)

    def attend(self, states: Tensor, cells: Tensor) -> Tensor:
        """One visual vector for each token, ``softmax(Z K^T / sqrt(d)) K`` over the picture's projected cells ``K``."""
        keys = self.look(cells)
        scores = (states @ keys.transpose(1, 2)).float() / states.shape[-1] ** 0.5
        return scores.softmax(-1).to(keys.dtype) @ keys

    def adapt(self, states: Tensor, seen: Tensor) -> Tensor:
        """The gate itself: states and visual vectors ``[R, T, d]`` to shifted states."""
        gate = self.gate(torch.cat([states, seen.to(states.dtype)], -1)).relu()
        shift = (gate * self.shift(seen)).float() + self.bias
        states = states.float()
        ratio = states.norm(dim=-1, keepdim=True) / (shift.norm(dim=-1, keepdim=True) + _TINY)
        adapted: Tensor = self.norm(states + (self.beta * ratio).clamp(max=1) * shift)
        return adapted
