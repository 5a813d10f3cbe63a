"""Every span of up to so many words, judged by its first and its last word (PURE: Zhong and Chen, NAACL 2021).

``I`` texts of ``W`` words; span ``(i, l)`` begins at word ``i`` and ends at word ``i + l``, ``0 <= l < L``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def enumerate_spans(mask: Tensor, longest: int) -> tuple[Tensor, Tensor]:
    """The last word of each span, ``[W, L]`` (clamped into the text), and which spans there are, bool ``[I, W, L]``.

    Args:
        mask: which words there are, bool ``[I, W]``; padding stands behind the words.
        longest: ``L``, in words.
    """
    width = mask.shape[1]
    last = torch.arange(width, device=mask.device)[:, None] + torch.arange(longest, device=mask.device)
    inside = last < width
    last = last.clamp(max=width - 1)
    return last, mask[:, :, None] & mask[:, last] & inside


class SpanMLP(nn.Module):
    """``W_o f(... f(W_1 [h_i; h_j] + b_1))`` with ``f = dropout(relu(.))``.

    ``W_1`` is kept in two halves, one a word, so that no pair of states is written out.

    Args:
        hidden: width of a word's state.
        width: of each hidden layer.
        layers: how many of them, at least 1.
        outputs: scores of a span.
        dropout: behind each hidden layer.
    """

    def __init__(self, hidden: int, width: int, layers: int, outputs: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.first = nn.Linear(hidden, width)
        self.last = nn.Linear(hidden, width, bias=False)
        rest: list[nn.Module] = [nn.ReLU(), nn.Dropout(dropout)]
        for _ in range(layers - 1):
            rest += [nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout)]
        self.rest = nn.Sequential(*rest, nn.Linear(width, outputs))

    def forward(self, words: Tensor, last: Tensor) -> Tensor:
        """Scores ``[I, W, L, outputs]`` in fp32 of words' states ``[I, W, d]`` and spans' last words ``[W, L]``."""
        joined = self.first(words)[:, :, None] + self.last(words)[:, last]
        scores: Tensor = self.rest(joined)
        return scores.float()
