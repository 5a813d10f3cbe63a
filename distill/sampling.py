"""Which unlabelled examples to label next: pure functions of what a student said of them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise


def least_confidence(log_probabilities: Sequence[float]) -> list[float]:
    """``-log P(y* | x)``: the higher, the less sure the student is of its own best tag sequence.

    It orders as ``1 - P(y* | x)`` does, which for long texts could not be told from 1 (Zheng et al., KDD 2018, 4.1).

    Args:
        log_probabilities: ``log P(y* | x)`` of each example.
    """
    return [-one for one in log_probabilities]


def tag_flip(looks: Sequence[Sequence[Sequence[int]]]) -> list[float]:
    """``sum_e sum_t [y_e(t) != y_e-1(t)]``: how often each example's tags changed during training (section 4.2).

    What the student forgets and learns again it has not understood.

    Args:
        looks: at each look, each example's best tag sequence; an example's are all of one length.
    """
    flips = [0.0] * (len(looks[0]) if looks else 0)
    for before, now in pairwise(looks):
        for number, (old, new) in enumerate(zip(before, now, strict=True)):
            flips[number] += sum(a != b for a, b in zip(old, new, strict=True))
    return flips


def highest(scores: Sequence[float], count: int, seed: str | int) -> list[int]:
    """The places of the ``count`` highest scores (or of all), the highest first; ties are drawn by the seed."""
    order = list(range(len(scores)))
    random.Random(seed).shuffle(order)
    return sorted(order, key=lambda at: -scores[at])[:count]
