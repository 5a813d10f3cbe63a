"""Ranking a closed vocabulary by cosine: negatives drawn, and the losses that bring gold to the front."""

from __future__ import annotations

import torch
from torch import Tensor

#: Fills up lists of values.
NONE = -1


def draw(candidates: Tensor, positives: Tensor, frequencies: Tensor, count: int, within: float) -> Tensor:
    """Negatives ``[I, count]``, none of them gold; -1 where there is nothing to draw from.

    Each is, with probability ``within``, one of the slot's own candidates, all alike; else any value, by its frequency.
    Where one source has nothing but gold, the other serves (Logan et al. 2017 mix the two).

    Args:
        candidates, positives: values ``[I, C]`` and ``[I, P]``, filled up with -1.
        frequencies: ``[V]``.
    """
    size = len(frequencies)
    allowed = 1.0 - _hot(positives, size)
    sources = [_hot(candidates, size) * allowed, frequencies * allowed]
    own, all_ = (_sample(weights, count) for weights in sources)
    inside = torch.rand(own.shape) < within
    first, second = torch.where(inside, own, all_), torch.where(inside, all_, own)
    return torch.where(first == NONE, second, first)


def margin_loss(positive: Tensor, negative: Tensor, margin: float) -> Tensor:
    """``max(0, margin + d(c, v+) - d(c, v-))`` with ``d = 1 - cosine``: mean over each slot's pairs, then over slots.

    Args:
        positive, negative: cosines ``[I, P]`` and ``[I, N]``, ``-inf`` where there is none. A slot without a positive
            is left out; one without a negative counts 0.
    """
    pairs = (positive > -torch.inf)[:, :, None] & (negative > -torch.inf)[:, None]
    apart = margin - positive.nan_to_num(neginf=0.0)[:, :, None] + negative.nan_to_num(neginf=0.0)[:, None]
    own = apart.clamp(min=0).masked_fill(~pairs, 0.0).sum((1, 2)) / pairs.sum((1, 2)).clamp(min=1)
    return own.sum() / (positive > -torch.inf).any(1).sum()


def softmax_loss(positive: Tensor, candidate: Tensor, gold: Tensor, sharpness: float) -> Tensor:
    """``-log(sum over gold exp(s cos) / sum over candidates exp(s cos))``: mean over the slots that have gold.

    Args:
        positive, candidate: cosines ``[I, P]`` and ``[I, C]``, ``-inf`` where there is none.
        gold: which candidates are gold ``[I, C]``; gold that is no candidate is added to the sum.
        sharpness: ``s``.
    """
    told = (positive > -torch.inf).any(1)  # the others would have gradients that are no numbers
    wanted = (sharpness * positive[told]).logsumexp(1)
    others = (sharpness * candidate[told]).masked_fill(gold[told], -torch.inf)
    return (torch.cat([others, wanted[:, None]], 1).logsumexp(1) - wanted).mean()


def at(scores: Tensor, values: Tensor) -> Tensor:
    """The scores ``[I, V]`` of some values ``[I, C]``; ``-inf`` for what fills them up."""
    return scores.gather(1, values.clamp(min=0)).masked_fill(values == NONE, -torch.inf)


def _hot(values: Tensor, size: int) -> Tensor:
    hot = torch.zeros(len(values), size + 1)
    return hot.scatter(1, values.where(values != NONE, torch.tensor(size)), 1.0)[:, :size]


def _sample(weights: Tensor, count: int) -> Tensor:
    """Columns ``[I, count]`` drawn by weight, again and again; -1 for a row without weight."""
    some = weights.sum(1) > 0
    drawn = torch.multinomial(torch.where(some[:, None], weights, 1.0), count, replacement=True)
    return drawn.where(some[:, None], torch.tensor(NONE))
