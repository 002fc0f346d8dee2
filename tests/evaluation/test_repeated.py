"""Means over cases and seeds: by arithmetic, beside the bootstrap, and by how often an interval holds the truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from medseg.evaluation import bootstrap_interval, common_cases, difference_of, mean_of, repeated_interval


def test_paired_differences_by_arithmetic() -> None:
    """Gains of 0.1, 0.2 and 0.3 in three cases; the case that one seed could not score counts nowhere."""
    before: list[dict[str, float | None]] = [
        {"a": 0.5, "b": 0.6, "c": 0.1, "d": 0.0},
        {"a": 0.7, "b": 0.2, "c": 0.3, "d": 0.0},
    ]
    after: list[dict[str, float | None]] = [
        {"d": None, "a": 0.6, "b": 0.8, "c": 0.4},
        {"a": 0.8, "b": 0.4, "c": 0.6, "d": 1.0},
    ]
    gain = difference_of(before, after)
    assert gain is not None
    assert (gain.value, gain.cases, gain.seeds) == (pytest.approx(0.2), 3, 2)
    assert gain.interval == pytest.approx((0.1, 0.3), abs=1e-9)  # the seeds agree in every case
    some = difference_of(before, after, among=["a", "b", "d"])
    assert some is not None
    assert (some.value, some.cases) == (pytest.approx(0.15), 2)
    with pytest.raises(ValueError, match="cannot be paired"):
        difference_of(before, after[:1])


def test_common_cases_have_a_value_everywhere() -> None:
    assert common_cases([{"b": 0.1, "a": 0.2, "c": None}, {"a": 0.0, "b": 1.0, "c": 0.3}]) == ["a", "b"]
    assert common_cases([]) == []


def test_intervals_of_one_seed_are_those_over_cases() -> None:
    values = np.random.default_rng(0).random((1, 40))
    assert repeated_interval(values) == bootstrap_interval(values[0])


def test_seeds_that_agree_leave_the_interval_over_cases() -> None:
    cases = np.random.default_rng(1).random(50)
    assert repeated_interval(np.stack([cases, cases])) == pytest.approx(bootstrap_interval(cases))


def test_cases_that_agree_leave_students_interval_of_the_seeds() -> None:
    """Means of 0.1, 0.2 and 0.3: t(2) = 4.3027 and a standard error of 0.1 / sqrt(3)."""
    values = np.repeat([[0.1], [0.2], [0.3]], 9, axis=1)
    assert stats.t.ppf(0.975, 2) == pytest.approx(4.3027, abs=1e-4)
    margin = 4.3027 * 0.1 / 3**0.5
    assert repeated_interval(values) == pytest.approx((0.2 - margin, 0.2 + margin), abs=1e-4)
    assert repeated_interval(np.array([[1.0], [2.0]])) is None


@pytest.mark.parametrize(
    ("of_seeds", "of_cases", "of_both"), [(0.01, 0.03, 0.01), (0.03, 0.03, 0.02), (0.0, 0.05, 0.0)]
)
def test_intervals_of_three_seeds_hold_the_truth_as_often_as_they_say(
    of_seeds: float, of_cases: float, of_both: float
) -> None:
    """400 simulations of 52 cases: the share may be off by three standard errors of 0.011, or more, but not less."""
    generator, held = np.random.default_rng(0), 0
    for _ in range(400):
        values = generator.normal(0, of_seeds, (3, 1)) + generator.normal(0, of_cases, (1, 52))
        found = repeated_interval(values + generator.normal(0, of_both, (3, 52)), resamples=500)
        assert found is not None
        held += found[0] <= 0 <= found[1]
    assert held / 400 >= 0.95 - 3 * 0.011


def test_a_mean_of_nothing_is_none() -> None:
    assert mean_of([]) is None
    assert mean_of([{"a": None}]) is None
