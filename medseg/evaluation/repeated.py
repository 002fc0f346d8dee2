"""Means over cases and over trainings that differ in their seed alone, and paired differences, with intervals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medseg.evaluation.bootstrap import bootstrap_interval

CaseValues = Mapping[str, float | None]  # of one training: case -> value, None where it is not defined


@dataclass(frozen=True)
class RepeatedMean:
    """A mean over cases and trainings with its 95 % interval; no interval for fewer than two cases."""

    value: float
    interval: tuple[float, float] | None
    cases: int
    seeds: int


def common_cases(trainings: Sequence[CaseValues]) -> list[str]:
    """The cases that have a value under every training, sorted."""
    first = trainings[0] if trainings else {}
    return sorted(case for case in first if all(one.get(case) is not None for one in trainings))


def mean_of(trainings: Sequence[CaseValues], among: Collection[str] | None = None) -> RepeatedMean | None:
    """The mean over the common cases, `among` some of them where given; None where there is none."""
    return _mean(_table(trainings, _chosen(trainings, among)))


def difference_of(
    before: Sequence[CaseValues], after: Sequence[CaseValues], among: Collection[str] | None = None
) -> RepeatedMean | None:
    """The mean of after - before, paired by case and by seed. Raises ValueError for unequal numbers of seeds."""
    if len(before) != len(after):
        raise ValueError(f"{len(before)} seeds before and {len(after)} after cannot be paired")
    cases = _chosen([*before, *after], among)
    return _mean(_table(after, cases) - _table(before, cases))


def repeated_interval(
    values_sc: np.ndarray, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float] | None:
    """The interval of the mean of values `(seeds, cases)`, for seeds and cases that might have been others.

    Of one seed: the bootstrap over cases, in which the noise of the seed is not. Of several: that of the cases' means
    over seeds and Student's t of the seeds' means over cases, whose margins on each side are added as squares (the
    method of variance estimates recovery; Zou and Donner, Statistics in Medicine 27, 2008). A bootstrap over three
    seeds would be too narrow by far. None for fewer than two cases.
    """
    from scipy import stats  # slow to import, and this module is read with every config

    seeds, cases = values_sc.shape
    of_cases = bootstrap_interval(values_sc.mean(axis=0), level, resamples, seed) if cases > 1 else None
    if of_cases is None or seeds == 1:
        return of_cases
    mean, of_seeds = float(values_sc.mean()), values_sc.mean(axis=1)
    margin = stats.t.ppf((1 + level) / 2, seeds - 1) * of_seeds.std(ddof=1) / np.sqrt(seeds)
    low, high = np.hypot(margin, mean - of_cases[0]), np.hypot(margin, of_cases[1] - mean)
    return float(mean - low), float(mean + high)


def _chosen(trainings: Sequence[CaseValues], among: Collection[str] | None) -> list[str]:
    return [case for case in common_cases(trainings) if among is None or case in among]


def _table(trainings: Sequence[CaseValues], cases: Sequence[str]) -> np.ndarray:
    """Values `(seeds, cases)`."""
    values = [[one[case] for case in cases] for one in trainings]
    return np.array(values, dtype=np.float64).reshape(len(trainings), len(cases))


def _mean(values_sc: np.ndarray) -> RepeatedMean | None:
    seeds, cases = values_sc.shape
    return RepeatedMean(float(values_sc.mean()), repeated_interval(values_sc), cases, seeds) if values_sc.size else None
