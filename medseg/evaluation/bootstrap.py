"""How far a mean over these cases might lie from the mean over all cases like them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

_AT_ONCE = 2**21  # drawn indices held in memory at a time, 16 MiB


def bootstrap_interval(
    values: Sequence[float] | np.ndarray, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float] | None:
    """The percentile bootstrap interval of the mean; None for fewer than two values.

    Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13. Cases are drawn with replacement and
    independently, so several cases of one patient make the interval too narrow. The same seed and number of values give
    the same draws, which pairs the intervals of different metrics.
    """
    given = np.asarray(values, dtype=np.float64)
    if given.size < 2:
        return None
    generator = np.random.default_rng(seed)
    means = np.empty(resamples)
    step = max(1, _AT_ONCE // given.size)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        means[start:stop] = given[generator.integers(given.size, size=(stop - start, given.size))].mean(axis=1)
    low, high = np.percentile(means, [50 * (1 - level), 50 * (1 + level)])
    return float(low), float(high)
