"""Pointer-generator: a decoder's next word is either written out of the vocabulary or copied from what it reads."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Pointer(nn.Module):
    """Mixes ``P(w) = p P_vocabulary(w) + (1 - p) sum_{i: w_i = w} a_i`` (See et al., ACL 2017, eq. 8-9).

    ``a = softmax(<W_q s, W_k h_i> / sqrt(k))`` over the states ``h_i`` that are read, ``p = sigmoid(w [s; a h])``.

    Args:
        width: width of the decoder's states ``s``.
        hidden: width of the states that are read.
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(hidden, width)
        self.write = nn.Linear(width + hidden, 1)

    def forward(self, states: Tensor, memory: Tensor, source: Tensor, log_vocabulary: Tensor, words: Tensor) -> Tensor:
        """Log probabilities ``[N, L, C]`` of some words.

        Args:
            states: ``[N, L, width]``.
            memory: the states that are read, ``[N, S, hidden]``.
            source: the word at each of them, ``[N, S]``; negative where it cannot be copied.
            log_vocabulary: the decoder's own log probabilities ``[N, L, C]``.
            words: which words these are, ``[N, C]`` (each once; negative: none), or ``[C]`` for all rows.
        """
        scores = (self.query(states) @ self.key(memory).transpose(1, 2)).float() / states.shape[-1] ** 0.5
        attention = scores.masked_fill(source[:, None] < 0, -torch.inf).softmax(-1)
        context = attention.to(memory.dtype) @ memory
        write = self.write(torch.cat([states, context.to(states.dtype)], -1)).float()
        copied = self._by_word(attention, source, words)
        tiny = torch.finfo(torch.float32).tiny
        return torch.logaddexp(
            nn.functional.logsigmoid(write) + log_vocabulary,
            nn.functional.logsigmoid(-write) + copied.clamp(min=tiny).log(),
        )

    @staticmethod
    def _by_word(attention: Tensor, source: Tensor, words: Tensor) -> Tensor:
        """Attention ``[N, L, S]`` summed over the places of each word, ``[N, L, C]``."""
        if words.dim() == 2:
            same = (source[:, :, None] == words[:, None]) & (words[:, None] >= 0)
            return attention @ same.float()
        zeros = attention.new_zeros(*attention.shape[:2], len(words))
        return zeros.scatter_add(2, source.clamp(min=0)[:, None].expand_as(attention), attention)
