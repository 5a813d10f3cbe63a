"""The conditional prompt: learnable vectors that look at a text and then stand before it.

Conditional prompt distillation (Chen & Feng, arXiv 2306.14122) teaches such a prompt to bring back the
knowledge that the text alone lacks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConditionalPrompt(nn.Module):
    """``p = LN(P + MHA(query=P, key=x, value=x))``, then ``p + FFN(p)``, for learnable ``P [m, d]``.

    The result has the size (root mean square) of the words' own embeddings, so that a backbone without a norm
    on its input meets nothing strange.

    Args:
        dim: width ``d`` of the backbone's input embeddings.
        length: number ``m`` of prompt vectors.
        heads: attention heads; they divide ``dim``.
        conditional: whether it looks at the text; without, ``p = LN(P)`` of every text (prompt tuning's, an ablation).
    """

    def __init__(self, dim: int, length: int = 16, heads: int = 8, conditional: bool = True) -> None:
        super().__init__()
        if dim % heads:
            raise ValueError(f"{heads} heads do not divide the width {dim}")
        self.vectors = nn.Parameter(torch.randn(length, dim))
        # Words come at any size (0.05 in BERT, 1 in Gemma): attention sees them at that of the vectors.
        self.words = nn.LayerNorm(dim) if conditional else None
        self.attention = nn.MultiheadAttention(dim, heads, batch_first=True) if conditional else None
        self.norm = nn.LayerNorm(dim)
        self.feed_forward = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Prompt ``[B, m, d]`` of input embeddings ``[B, T, d]``.

        Args:
            embeddings: the words' input embeddings.
            mask: ``[B, T]``, true (or 1) where there is text. A row without any reads nothing: its prompt is
                that of ``LN(P)``.
        """
        mask = mask.bool()
        some = mask.any(1)
        vectors = self.vectors.expand(len(embeddings), -1, -1)
        if self.attention is not None and self.words is not None:
            words = self.words(embeddings.masked_fill(~mask[..., None], 0.0))
            # A row that masks everything would be all NaN: it may read, and what it read is dropped.
            unread = ~mask & some[:, None]
            read, _ = self.attention(vectors, words, words, key_padding_mask=unread, need_weights=False)
            vectors = vectors + read * some[:, None, None]
        prompt = self.norm(vectors)
        return (prompt + self.feed_forward(prompt)) * _size(embeddings, mask)


def _size(embeddings: Tensor, mask: Tensor) -> Tensor:
    """Root mean square ``[B, 1, 1]`` of the words' entries, as a constant; 1 for a row without words."""
    squares = embeddings.detach().float().square().mean(-1)
    count = mask.sum(1)
    size = (squares.masked_fill(~mask, 0.0).sum(1) / count.clamp(min=1)).sqrt()
    return torch.where(count > 0, size, 1.0)[:, None, None].to(embeddings.dtype)
