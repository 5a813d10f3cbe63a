"""Co-attention: a text and the objects of its picture, each attending to itself, then the text to the objects."""

from __future__ import annotations

from torch import Tensor, nn


class Attend(nn.Module):
    """Multi-head attention with dropout on what it gives; rows without anything to attend to get 0.

    Args:
        width: of states and of what they attend to.
        heads: of the attention.
        dropout: on the weights and on the output.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)

    def forward(self, states: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """``[R, T, d]`` of states ``[R, T, d]``, of memory ``[R, K, d]`` and of which of it there is, ``[R, K]``."""
        present = mask.any(1)
        # A softmax over nothing is NaN (with -inf) or an average of padding (with -1e9): such a row sees all, times 0.
        hidden = ~(mask | ~present[:, None])
        seen, _ = self.attention(states, memory, memory, key_padding_mask=hidden, need_weights=False)
        given: Tensor = self.dropout(seen) * present[:, None, None]
        return given


def feed_forward(width: int, inner: int, dropout: float) -> nn.Sequential:
    """``W relu(W x)``."""
    return nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Dropout(dropout), nn.Linear(inner, width))


class Block(nn.Module):
    """``q' = LN(q + Attend(q, m))``, then ``LN(q' + FFN(q'))``: the layer of a Transformer, with LayerNorm behind.

    With ``m = q`` it is self-attention. A row whose ``m`` is all masked goes through as if nothing had been there.
    """

    def __init__(self, width: int, heads: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.attend = Attend(width, heads, dropout)
        self.feed, self.dropout = feed_forward(width, inner, dropout), nn.Dropout(dropout)
        self.attend_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, states: Tensor, memory: Tensor | None, mask: Tensor | None) -> Tensor:
        """``[R, T, d]`` of states, memory ``[R, K, d]`` and its mask ``[R, K]``; None for no memory in any row."""
        if memory is not None and mask is not None:
            states = states + self.attend(states, memory, mask)
        states = self.attend_norm(states)
        given: Tensor = self.feed_norm(states + self.dropout(self.feed(states)))
        return given


class CoAttention(nn.Module):
    """What a text takes of its objects ``F [R, T, d]``, to be added to it (OCSGA, Wu et al., ACM MM 2020)::

        x' = Block(x, x)                       o' = LN(o + Attend(o, o))
        F' = LN(Attend(x', o'))                F = LN(drop(FFN(F')))

    The two last have no residual: ``F`` is made of objects alone. A row without objects gets ``F = 0``.

    Args:
        width, heads, dropout: as `Block` has them; feed-forward parts are four times as wide.
        own: whether each side attends to itself first; without, ``x' = x`` and ``o' = o``.
    """

    def __init__(self, width: int, heads: int, dropout: float, own: bool = True) -> None:
        super().__init__()
        self.words = Block(width, heads, 4 * width, dropout) if own else None
        self.objects = Attend(width, heads, dropout) if own else None
        self.objects_norm = nn.LayerNorm(width) if own else None
        self.guided, self.guided_norm = Attend(width, heads, dropout), nn.LayerNorm(width)
        self.feed, self.dropout = feed_forward(width, 4 * width, dropout), nn.Dropout(dropout)
        self.feed_norm = nn.LayerNorm(width)

    def forward(self, words: Tensor, mask: Tensor, objects: Tensor, there: Tensor) -> Tensor:
        """``F`` of words ``[R, T, d]``, objects ``[R, K, d]`` and which there are, ``[R, T]`` and ``[R, K]``."""
        if self.words is not None and self.objects is not None and self.objects_norm is not None:
            words = self.words(words, words, mask)
            objects = self.objects_norm(objects + self.objects(objects, objects, there))
        guided = self.guided_norm(self.guided(words, objects, there))
        taken: Tensor = self.feed_norm(self.dropout(self.feed(guided)))
        # LayerNorm turns the zeros of a row without objects into its bias.
        return taken * there.any(1)[:, None, None]
