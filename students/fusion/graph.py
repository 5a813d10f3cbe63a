"""Graph fusion: words and objects send each other gated messages along the edges of a graph (UMGF, AAAI 2021).

Source: Zhang et al., AAAI 2021, section 3.3, and the authors' code. ``R`` rows of ``T`` words ``x_i`` and ``K`` objects
``o_j``; within a modality all nodes are linked, between them those that ``M [R, T, K]`` links.
"""

from __future__ import annotations

from torch import Tensor, nn


class BareAttention(nn.Module):
    """Multi-head attention of nodes to each other by projected queries and keys; the values are the nodes themselves.

    There is no output projection either: each head averages its own share of the numbers.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, nodes: Tensor) -> Tensor:
        """``[R, K, d]`` to ``[R, K, d]``."""
        split = lambda x: x.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        query, key, value = split(self.query(nodes)), split(self.key(nodes)), split(nodes)
        scores = (query @ key.transpose(2, 3)).float() / query.shape[-1] ** 0.5
        attended: Tensor = scores.softmax(-1).to(value.dtype) @ value
        return attended.transpose(1, 2).flatten(2)


class Messages(nn.Module):
    """``m_i = sum_j M_ij sigmoid(W [a_i; b_j] + c) * b_j``: what each node takes of its neighbours, number by number.

    Args:
        width: of a node.
        gates: False leaves the gate out: ``m_i = sum_j M_ij b_j``.
    """

    def __init__(self, width: int, gates: bool = True) -> None:
        super().__init__()
        # W [a; b] as two products: the pairs themselves, T x K x 2d numbers, need not be laid out.
        self.own = nn.Linear(width, width) if gates else None
        self.other = nn.Linear(width, width, bias=False) if gates else None

    def forward(self, own: Tensor, others: Tensor, links: Tensor) -> Tensor:
        """``[R, N, d]`` of nodes ``[R, N, d]``, their neighbours ``[R, M, d]`` and the edges ``[R, N, M]``."""
        links = links.to(others.dtype)
        if self.own is None or self.other is None:
            plain: Tensor = links @ others
            return plain
        gates = (self.own(own)[:, :, None] + self.other(others)[:, None]).sigmoid()
        gated: Tensor = (gates * (links[..., None] * others[:, None])).sum(2)
        return gated


class GraphLayer(nn.Module):
    """Attention within each modality, then messages between them, then a feed-forward layer, each with residual and
    LayerNorm::

        x' = LN(x + MHA(x, x, x))      o' = LN(o + BareAttention(o))
        x <- LN(x'' + FFN(x'')) of x'' = LN(x' + m(x', o'))      o <- the same of o'' = LN(o' + m'(o', x'))

    A word without linked objects gets ``m = 0`` exactly. The last layer leaves the objects at ``o'``: the words alone
    are read.

    Args:
        width, heads, inner: of a node, of both attentions, of the feed-forward layers.
        dropout: on attention weights and on what is added.
        gates: `Messages`.
        per_word: divide what an object takes by how many words it is linked to. As published it is a sum, which grows
            with the text.
        last: whether no layer reads its objects.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        inner: int,
        dropout: float,
        gates: bool = True,
        per_word: bool = False,
        last: bool = False,
    ) -> None:
        super().__init__()
        self.per_word = per_word
        self.dropout = nn.Dropout(dropout)
        self.word_attention = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.object_attention = BareAttention(width, heads)
        self.word_norm, self.object_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.words = _Update(width, inner, dropout, gates)
        self.objects = None if last else _Update(width, inner, dropout, gates)

    def forward(
        self, words: Tensor, mask: Tensor, objects: Tensor | None = None, links: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Words ``[R, T, d]`` and objects ``[R, K, d]``, each having met the other.

        Args:
            words, mask: ``[R, T, d]``, and which there are, bool ``[R, T]``; every row has one.
            objects: ``[R, K, d]``, or None where no row has any.
            links: ``M``, bool ``[R, T, K]``; no edge leads to padding, none to a row without objects.
        """
        seen, _ = self.word_attention(words, words, words, key_padding_mask=~mask, need_weights=False)
        words = self.word_norm(words + self.dropout(seen))
        if objects is None or links is None:
            return self.words(words), None
        objects = self.object_norm(objects + self.dropout(self.object_attention(objects)))
        updated = self.words(words, objects, links)
        if self.objects is not None:
            back = links.transpose(1, 2).to(words.dtype)
            if self.per_word:
                back = back / back.sum(2, keepdim=True).clamp(min=1)
            objects = self.objects(objects, words, back)
        return updated, objects


class _Update(nn.Module):
    """Messages and the feed-forward layer of one kind of node."""

    def __init__(self, width: int, inner: int, dropout: float, gates: bool) -> None:
        super().__init__()
        self.messages = Messages(width, gates)
        self.feed = nn.Sequential(nn.Linear(width, inner), nn.ReLU(), nn.Dropout(dropout), nn.Linear(inner, width))
        self.message_norm, self.feed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, nodes: Tensor, others: Tensor | None = None, links: Tensor | None = None) -> Tensor:
        if others is not None and links is not None:
            nodes = nodes + self.dropout(self.messages(nodes, others, links))
        nodes = self.message_norm(nodes)
        updated: Tensor = self.feed_norm(nodes + self.dropout(self.feed(nodes)))
        return updated


def linked(words: Tensor, present: Tensor, objects: int) -> Tensor:
    """``M``, bool ``[R, T, K]``: every word, ``[R, T]``, to every object of a row that has them, ``[R]``."""
    edges: Tensor = (words & present[:, None])[..., None].expand(-1, -1, objects)
    return edges


def part_vectors(level: Tensor, crops: int) -> Tensor:
    """One vector for the whole picture and for each of its ``crops`` parts, ``[R, 1 + crops, c]``.

    Each is the mean of its cells of a level ``[R, (1 + crops) * cells, c]`` (`encoders.regions`).
    """
    vectors: Tensor = level.unflatten(1, (1 + crops, -1)).mean(2)
    return vectors
