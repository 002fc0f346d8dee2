"""The bootstrap interval against SciPy's own, and where it has nothing to say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medseg.evaluation import bootstrap_interval


def test_the_interval_agrees_with_scipy() -> None:
    values = np.random.default_rng(3).beta(8, 2, size=52)
    options = {"n_resamples": 100_000, "method": "percentile", "batch": 10_000}
    reference = stats.bootstrap((values,), np.mean, rng=np.random.default_rng(1), **options).confidence_interval
    low, high = bootstrap_interval(values, resamples=100_000) or (0.0, 0.0)
    assert (low, high) == (pytest.approx(reference.low, abs=1e-3), pytest.approx(reference.high, abs=1e-3))


def test_the_interval_of_many_values_is_that_of_the_normal_law() -> None:
    values = np.random.default_rng(5).normal(10, 2, size=2000)
    low, high = bootstrap_interval(values) or (0.0, 0.0)
    half = 1.96 * values.std(ddof=1) / np.sqrt(values.size)
    assert (low, high) == (pytest.approx(values.mean() - half, abs=0.01), pytest.approx(values.mean() + half, abs=0.01))


def test_the_same_seed_gives_the_same_interval() -> None:
    values = np.random.default_rng(1).random(20)
    assert bootstrap_interval(values, seed=4) == bootstrap_interval(values, seed=4)
    assert bootstrap_interval(values, seed=4) != bootstrap_interval(values, seed=5)


def test_a_higher_level_gives_a_wider_interval() -> None:
    values = np.random.default_rng(0).random(30)
    narrow, wide = bootstrap_interval(values, level=0.5), bootstrap_interval(values, level=0.99)
    assert narrow is not None
    assert wide is not None
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_equal_values_leave_no_doubt_and_one_value_no_interval() -> None:
    assert bootstrap_interval([0.5, 0.5, 0.5]) == (0.5, 0.5)
    assert bootstrap_interval([0.5]) is None
    assert bootstrap_interval([]) is None
