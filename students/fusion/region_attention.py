"""One look of a sentence at the regions of its picture, and gates that let words take it (Lu et al., ACL 2018).

``B`` sentences of ``W`` words, ``K`` regions of a picture.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

#: What the weights of the regions depend on (`RegionAttention`).
Looking = Literal["sentence", "regions", "mean"]


class RegionAttention(nn.Module):
    """``v_c = sum_k E_k v_k`` with ``E = softmax_k(w_a . tanh(W_t q + W_v v_k + b))``: what a sentence sees.

    The paper has ``w_a . (tanh(W_t q) + tanh(W_v v_k))``. There the sentence ``q`` adds the same number to every
    region's score, and the softmax drops it: all sentences look at a picture alike. So the sum stands inside the tanh
    here, as in stacked attention (Yang et al., CVPR 2016). ``regions`` is the paper's form, without the terms
    that cancel; ``mean`` weighs all regions alike.
    """

    def __init__(self, hidden: int, width: int, inner: int, looking: Looking = "sentence") -> None:
        super().__init__()
        self.query = nn.Linear(hidden, inner, bias=False) if looking == "sentence" else None
        self.key = nn.Linear(width, inner) if looking != "mean" else None
        self.score = nn.Linear(inner, 1, bias=False) if looking != "mean" else None

    def weights(self, query: Tensor, regions: Tensor) -> Tensor:
        """``E [B, K]`` of sentences ``[B, h]`` and regions ``[B, K, d]``."""
        if self.key is None or self.score is None:
            return regions.new_full(regions.shape[:2], 1 / regions.shape[1])
        keys = self.key(regions)
        if self.query is not None:
            keys = keys + self.query(query)[:, None]
        scores: Tensor = self.score(keys.tanh())[..., 0]
        return scores.float().softmax(1)

    def forward(self, query: Tensor, regions: Tensor) -> Tensor:
        """``v_c [B, d]``; see `weights`."""
        return (self.weights(query, regions)[..., None] * regions).sum(1)


class VisualGate(nn.Module):
    """``w_t = beta_w * h_t + beta_v * m_t``: what each word keeps of itself and what it takes of the picture.

    ``m_t = tanh(W_m h_t + U_m v_c + b_m)``, ``beta_w = sigmoid(W_w h_t + U_w v_c + b_w)``, ``beta_v`` alike, each with
    as many dimensions as a state. A sentence without a picture keeps its states as they are.
    """

    def __init__(self, hidden: int, width: int, gate: bool = True) -> None:
        super().__init__()
        # Of W, U and b the rows are those of m_t and, with gates, of beta_w and beta_v.
        self.word = nn.Linear(hidden, (3 if gate else 1) * hidden)
        self.seen = nn.Linear(width, (3 if gate else 1) * hidden, bias=False)

    def forward(self, states: Tensor, seen: Tensor, present: Tensor) -> Tensor:
        """``w [B, W, h]`` of states ``[B, W, h]``, ``v_c [B, d]`` and which pictures there are, ``[B]``.

        Without gates ``h_t + m_t``.
        """
        mixed, *gates = (self.word(states) + self.seen(seen)[:, None]).chunk(
            self.word.out_features // states.shape[2], 2
        )
        taken = mixed.tanh()
        if gates:
            own, other = (gate.sigmoid() for gate in gates)
            fused = own * states + other * taken
        else:
            fused = states + taken
        return torch.where(present[:, None, None], fused, states)
