"""How sure a figure is: percentile bootstrap over examples, paired differences, spread over seeds.

A metric of a whole test set is a function of counts that are summed over its examples (correct, predicted,
gold, ...). So one resample is a weighted sum of the per-example counts, and all resamples together are one
matrix product.

Source: Efron and Tibshirani (1993), chapters 13 (percentile interval) and 16 (tests).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

#: Sums ``[..., k]`` to the metric's values ``[...]``, vectorised over the leading axes.
Statistic = Callable[[Floats], Floats]

RESAMPLES = 2000
LEVEL = 0.95
#: Draws held at once (resamples x examples), so that memory stays near 100 MB whatever the test set's size.
_DRAWS_AT_ONCE = 4_000_000


class Interval(NamedTuple):
    """A figure with the ends of its interval, all in the metric's own unit (fractions, not per cent)."""

    value: float
    low: float
    high: float


class Difference(NamedTuple):
    """Second system less first on the same examples, its interval, and the two-sided p value."""

    value: float
    low: float
    high: float
    p: float


class Spread(NamedTuple):
    """Mean, sample standard deviation (0 for one value) and number of values, for figures over seeds."""

    mean: float
    sd: float
    n: int


def resample(counts: ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> Floats:
    """Sums ``[resamples, ...]`` of per-example counts ``[n, ...]`` over n examples drawn with replacement.

    The same seed and n draw the same examples, whatever the columns. A `ValueError` if there are no examples.
    """
    table = np.asarray(counts, dtype=np.float64)
    n = len(table)
    if n == 0:
        raise ValueError("no examples to resample")
    flat = table.reshape(n, -1)
    rng = np.random.default_rng(seed)
    step = max(1, _DRAWS_AT_ONCE // n)
    sums = []
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(n, size=(rows, n)) + n * np.arange(rows)[:, None]
        times_drawn = np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n)
        sums.append(times_drawn.astype(np.float64) @ flat)
    return np.concatenate(sums).reshape(resamples, *table.shape[1:])


def ends(values: ArrayLike, level: float = LEVEL) -> tuple[float, float]:
    """The percentile interval of resampled values; undefined ones (NaN) are left out."""
    tail = (1 - level) / 2
    low, high = np.nanquantile(np.asarray(values, dtype=np.float64), [tail, 1 - tail])
    return float(low), float(high)


def interval(
    counts: ArrayLike, statistic: Statistic, resamples: int = RESAMPLES, seed: int = 0, level: float = LEVEL
) -> Interval:
    """A metric of per-example counts ``[n, k]`` with its percentile bootstrap interval over the examples."""
    table = np.asarray(counts, dtype=np.float64)
    low, high = ends(statistic(resample(table, resamples, seed)), level)
    return Interval(float(statistic(table.sum(axis=0))), low, high)


def paired(
    first: ArrayLike,
    second: ArrayLike,
    statistic: Statistic,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Difference:
    """Second less first, both counts ``[n, k]`` over the same n examples, resampled together.

    p is twice the smaller share of resampled differences on either side of zero (one resample is added to
    both counts, so that p is never 0), at most 1. A `ValueError` if the two do not have the same shape.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.shape != b.shape:
        raise ValueError(f"a paired test needs the same examples and counts: {a.shape} against {b.shape}")
    sums = resample(np.stack([a, b], axis=1), resamples, seed)
    differences = statistic(sums[:, 1]) - statistic(sums[:, 0])
    value = float(statistic(b.sum(axis=0)) - statistic(a.sum(axis=0)))
    beyond = min((differences <= 0).sum(), (differences >= 0).sum())
    return Difference(value, *ends(differences, level), p=min(1.0, 2 * (float(beyond) + 1) / (resamples + 1)))


def over_seeds(values: Sequence[float]) -> Spread:
    """Mean and sample standard deviation of one figure over seeds. A `ValueError` if there are none."""
    if not values:
        raise ValueError("no values to average")
    array = np.asarray(values, dtype=np.float64)
    return Spread(float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else 0.0, len(array))
