"""Intervals against scipy and normal theory; paired tests on cases with a known answer."""

import time

import numpy as np
import pytest
from magister.eval.bootstrap import interval, over_seeds, paired, resample
from magister.eval.spans import f1
from scipy import stats

F1 = lambda sums: f1(sums[..., 0], sums[..., 1], sums[..., 2])


def counts(n, seed=0, skill=0.7):
    rng = np.random.default_rng(seed)
    gold = rng.integers(0, 4, n)
    correct = rng.binomial(gold, skill)
    return np.stack([correct, correct + rng.integers(0, 2, n), gold], axis=1)


def test_the_interval_equals_scipy_percentile_bootstrap():
    table = counts(400)
    ours = interval(table, F1, resamples=8000)
    over_axis = lambda c, p, g, axis: f1(c.sum(axis), p.sum(axis), g.sum(axis))
    how = {"paired": True, "vectorized": True, "n_resamples": 8000, "method": "percentile"}
    result = stats.bootstrap(tuple(table.T.astype(float)), over_axis, rng=np.random.default_rng(1), **how)
    reference = result.confidence_interval
    assert ours.value == pytest.approx(float(F1(table.sum(axis=0))))
    assert (ours.low, ours.high) == pytest.approx((reference.low, reference.high), abs=0.002)


def test_the_interval_of_a_share_is_the_normal_one():
    hits = np.array([[1, 1]] * 300 + [[0, 1]] * 700)
    ours = interval(hits, lambda s: s[..., 0] / s[..., 1], resamples=8000)
    half = 1.96 * (0.3 * 0.7 / 1000) ** 0.5
    assert ours == pytest.approx((0.3, 0.3 - half, 0.3 + half), abs=0.0015)


def test_resamples_keep_the_number_of_examples_and_the_mean():
    sums = resample(np.ones((50, 2, 3)), resamples=30)
    assert sums.shape == (30, 2, 3)
    assert (sums == 50).all()
    assert resample(np.arange(100.0)[:, None], 4000).mean() == pytest.approx(4950, rel=0.01)


def test_the_same_seed_draws_the_same_examples_whatever_the_columns():
    table = counts(60)
    assert (resample(table, 40)[:, :2] == resample(table[:, :2], 40)).all()
    assert not (resample(table, 40) == resample(table, 40, seed=1)).all()


def test_drawing_in_pieces_draws_the_same(monkeypatch):
    whole = resample(counts(70), 101)
    monkeypatch.setattr("magister.eval.bootstrap._DRAWS_AT_ONCE", 70 * 10)
    assert (resample(counts(70), 101) == whole).all()


def test_two_thousand_resamples_of_three_thousand_examples_take_under_a_second():
    table = counts(3000)
    start = time.process_time()
    interval(table, F1)
    assert time.process_time() - start < 1.0


def test_a_system_against_itself_is_no_difference():
    assert paired(counts(100), counts(100), F1) == (0, 0, 0, 1)


def test_a_clear_difference_and_its_sign():
    worse, better = counts(500, skill=0.5), counts(500, skill=0.9)
    difference = paired(worse, better, F1)
    assert 0.15 < difference.low < difference.value < difference.high < 0.5
    assert difference.p < 0.002
    back = paired(better, worse, F1)
    assert back == pytest.approx((-difference.value, -difference.high, -difference.low, difference.p))


def test_p_is_near_the_sign_test_where_both_apply():
    """60 of 100 discordant examples for the second system: exact two-sided binomial p = 0.057."""
    first = np.array([[0]] * 60 + [[1]] * 40 + [[1]] * 900)
    second = np.array([[1]] * 60 + [[0]] * 40 + [[1]] * 900)
    difference = paired(first, second, lambda s: s[..., 0] / 1000, resamples=8000)
    assert difference.value == pytest.approx(0.02)
    assert difference.p == pytest.approx(stats.binomtest(60, 100).pvalue, abs=0.02)


def test_p_values_under_no_difference_are_about_uniform():
    draws = [paired(counts(150, 2 * i), counts(150, 2 * i + 1), F1, resamples=300).p for i in range(200)]
    assert 0.01 <= np.mean(np.array(draws) < 0.05) <= 0.11


def test_paired_systems_must_have_the_same_examples():
    with pytest.raises(ValueError, match="same examples"):
        paired(counts(10), counts(11), F1)


def test_no_examples_is_an_error():
    with pytest.raises(ValueError, match="no examples"):
        resample(np.zeros((0, 3)))


def test_mean_and_sample_sd_over_seeds():
    assert over_seeds([0.8, 0.82, 0.84]) == pytest.approx((0.82, 0.02, 3))
    assert over_seeds([0.5]) == (0.5, 0, 1)
    with pytest.raises(ValueError, match="no values"):
        over_seeds([])
