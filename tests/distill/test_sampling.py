"""What to label next: the scores by hand, and ties drawn by the seed."""

from __future__ import annotations

import math

import pytest
from magister.distill.sampling import highest, least_confidence, tag_flip


def test_the_smallest_probability_comes_first() -> None:
    scores = least_confidence([math.log(p) for p in (0.9, 0.2, 0.5)])
    assert highest(scores, 2, 0) == [1, 2]
    # Probabilities this small are both 0 as floats, and 1 - p would be the same.
    assert highest(least_confidence([-900.0, -2000.0]), 1, 0) == [1]


def test_flips_are_counted_word_by_word_and_look_by_look() -> None:
    looks = [
        [[0, 0, 1], [2, 2]],
        [[0, 1, 1], [2, 2]],  # one flip in the first
        [[1, 0, 1], [2, 0]],  # two in the first, one in the second
        [[1, 0, 1], [2, 2]],  # and back again
    ]
    assert tag_flip(looks) == [3, 2]
    assert tag_flip(looks[:1]) == [0, 0]
    assert tag_flip([]) == []
    with pytest.raises(ValueError, match="shorter"):
        tag_flip([[[0, 1]], [[0]]])


def test_ties_are_drawn_by_the_seed() -> None:
    drawn = {tuple(highest([0.0] * 6, 3, seed)) for seed in range(40)}
    assert len(drawn) > 20
    assert highest([0.0] * 6, 3, 7) == highest([0.0] * 6, 3, 7)
    assert sorted(highest([0.0] * 4, 9, "a")) == [0, 1, 2, 3]
    counts = [0] * 4
    for seed in range(400):
        counts[highest([0.0, 0.0, 0.0, 0.0], 1, seed)[0]] += 1
    assert min(counts) > 60, "no place is preferred"
    assert {highest([1.0, 2.0, 2.0], 1, seed)[0] for seed in range(20)} == {1, 2}
