"""Fusion of whole modalities: one vector of each (a text, some pictures, a graph) and a query become one vector.

All have the same face: ``forward(query [I, q], modalities [I, M, d], present [I, M]) -> [I, d]``. A modality that is
not there takes no part, whatever its vector says.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

#: The fusions by name (`fusion`).
FusionName = Literal["concat", "attention", "gmu"]


class Concat(nn.Module):
    """``c = W_2 relu(W_1 [q; m_1; ...; m_M])`` with zeros for a modality that is not there."""

    def __init__(self, query: int, width: int, modalities: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(query + modalities * width, width), nn.ReLU(), nn.Linear(width, width))

    def forward(self, query: Tensor, modalities: Tensor, present: Tensor) -> Tensor:
        """``[I, d]``; see the module."""
        there = modalities.masked_fill(~present[..., None], 0.0)
        fused: Tensor = self.layers(torch.cat([query, there.flatten(1)], 1))
        return fused


class ModalityAttention(nn.Module):
    """``c = sum_m a_m m`` with ``a = softmax_m(w_m . [q; m])``: one weight a modality, conditioned on the query."""

    def __init__(self, query: int, width: int, modalities: int) -> None:
        super().__init__()
        self.scores = nn.ModuleList(nn.Linear(query + width, 1) for _ in range(modalities))

    def weights(self, query: Tensor, modalities: Tensor, present: Tensor) -> Tensor:
        """``a [I, M]``, 0 for a modality that is not there; all 0 where none is."""
        scores = torch.cat(
            [score(torch.cat([query, m], 1)) for score, m in zip(self.scores, modalities.unbind(1), strict=True)], 1
        )
        scores = scores.float().masked_fill(~present, -torch.inf)
        return scores.softmax(1).nan_to_num(0.0)

    def forward(self, query: Tensor, modalities: Tensor, present: Tensor) -> Tensor:
        """``[I, d]``; see the module."""
        there = modalities.masked_fill(~present[..., None], 0.0)
        return (self.weights(query, there, present)[..., None] * there).sum(1)


class GMU(nn.Module):
    """The gated multimodal unit (Arevalo et al., ICLR workshop 2017) of two modalities ``t, v``, gate by dimension:
    ``z = sigmoid(W_z [v; t])``, ``h = z * tanh(W_v v) + (1 - z) * tanh(W_t t)``.

    Where only one of them is there, the gate is wholly its own. The query takes no part of its own.
    """

    def __init__(self, query: int, width: int, modalities: int = 2) -> None:
        super().__init__()
        if modalities != 2:
            raise ValueError(f"a gated multimodal unit has two modalities, not {modalities}")
        self.gate = nn.Linear(2 * width, width)
        self.text, self.seen = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, query: Tensor, modalities: Tensor, present: Tensor) -> Tensor:
        """``[I, d]``; see the module."""
        there = modalities.masked_fill(~present[..., None], 0.0)
        text, seen = there.unbind(1)
        has_text, has_seen = present[:, :1], present[:, 1:]
        gate = self.gate(torch.cat([seen, text], 1)).sigmoid()
        gate = torch.where(has_text & has_seen, gate, has_seen.to(gate.dtype))
        fused = gate * self.seen(seen).tanh() + (1 - gate) * self.text(text).tanh()
        return fused * (has_text | has_seen)


def fusion(name: FusionName, query: int, width: int, modalities: int = 2) -> nn.Module:
    """The fusion of that name."""
    return {"concat": Concat, "attention": ModalityAttention, "gmu": GMU}[name](query, width, modalities)
