"""Means over cases and seeds, and of differences between two trainings, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from medseg.evaluation import bootstrap_interval

CasesOf = Mapping[str, float | None]  # case -> foreground Dice, None where it is not defined


@dataclass(frozen=True)
class Mean:
    """A mean over cases and seeds with its 95 % bootstrap interval; None where one case is too few for one."""

    value: float
    interval: tuple[float, float] | None
    cases: int
    seeds: int


def mean_of(seeds: Sequence[CasesOf]) -> Mean | None:
    """The mean over the cases that have a value under every seed; None where there is none."""
    return _mean(_table(seeds, _common(seeds)))


def difference_of(before: Sequence[CasesOf], after: Sequence[CasesOf]) -> Mean | None:
    """The mean of after - before, paired by case and by seed. Raises ValueError for unequal numbers of seeds."""
    if len(before) != len(after):
        raise ValueError(f"{len(before)} seeds before and {len(after)} after cannot be paired")
    cases = _common([*before, *after])
    return _mean(_table(after, cases) - _table(before, cases))


def crossed_interval(
    values_sc: np.ndarray, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float] | None:
    """The percentile interval of the mean of values `(seeds, cases)`, for seeds and cases that might have been others.

    Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 2007: rows and columns are drawn with replacement,
    each by itself. One seed says nothing of others: then cases alone are drawn.
    """
    seeds, cases = values_sc.shape
    if seeds == 1:
        return bootstrap_interval(values_sc[0], level, resamples, seed)
    if cases < 2:
        return None
    generator = np.random.default_rng(seed)
    of_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) / seeds
    of_cases = generator.multinomial(cases, np.full(cases, 1 / cases), size=resamples) / cases
    means = np.einsum("rs,sc,rc->r", of_seeds, values_sc, of_cases, optimize=True)
    low, high = np.percentile(means, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)


def _common(seeds: Sequence[CasesOf]) -> list[str]:
    first = seeds[0] if seeds else {}
    return [case for case in first if all(one.get(case) is not None for one in seeds)]


def _table(seeds: Sequence[CasesOf], cases: Sequence[str]) -> np.ndarray:
    """Values `(seeds, cases)`."""
    return np.array([[one[case] for case in cases] for one in seeds], dtype=np.float64).reshape(len(seeds), len(cases))


def _mean(values_sc: np.ndarray) -> Mean | None:
    seeds, cases = values_sc.shape
    return Mean(float(values_sc.mean()), crossed_interval(values_sc), cases, seeds) if values_sc.size else None
