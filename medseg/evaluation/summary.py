"""Scores of many cases in a few numbers, each with the number of cases behind it.

For a label or region: mean, median and so on over the cases in which the metric is defined (the rule for empty labels
is in `medseg.metrics.score`), and pooled ratios from voxel counts that are summed over all cases, as if they were one.
For the foreground: per case the mean over the labels that have a value, then the same statistics over cases; its
pooled counts are summed over labels too, its accuracy is the share of voxels whose labels are all right. Regions
overlap labels and do not enter the foreground. A failed case enters no statistic; it is counted and named.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from medseg.evaluation.bootstrap import bootstrap_interval
from medseg.evaluation.scores import FOREGROUND, CaseScores, FailedCase, Scores
from medseg.metrics import METRICS, Counts, LabelScore, MetricsConfig

_FOREGROUND_METRICS = tuple(name for name in METRICS if not name.startswith("volume"))  # volumes do not average


@dataclass(frozen=True)
class Statistic:
    """One metric over the `n` cases that have it; all None for n = 0, `sd` and `interval` for n = 1."""

    n: int
    mean: float | None
    median: float | None
    sd: float | None  # with n - 1
    minimum: float | None
    maximum: float | None
    interval: tuple[float, float] | None  # 95 %, percentile bootstrap of the mean over cases

    @classmethod
    def of(cls, values: Iterable[float | None], seed: int = 0) -> Statistic:
        found = np.array([value for value in values if value is not None], dtype=np.float64)
        if found.size == 0:
            return cls(0, None, None, None, None, None, None)
        sd = float(found.std(ddof=1)) if found.size > 1 else None
        mean, median = float(found.mean()), float(np.median(found))
        return cls(
            found.size, mean, median, sd, float(found.min()), float(found.max()), bootstrap_interval(found, seed=seed)
        )


@dataclass(frozen=True)
class LabelSummary:
    """One label or region over all scored cases; for the foreground the counts are sums over labels."""

    name: str
    is_region: bool
    absent: int  # cases without it in truth and prediction
    missed: int  # cases with it in the truth alone
    spurious: int  # cases with it in the prediction alone
    pooled: Counts  # `pooled.dice`, `pooled.iou`: ratios of sums over cases
    statistics: Mapping[str, Statistic]  # by metric name


@dataclass(frozen=True, eq=False)
class Summary:
    """What an evaluation found."""

    foreground: LabelSummary
    labels: tuple[LabelSummary, ...]  # labels, then regions
    cases: int  # scored; `failed` come on top
    failed: tuple[FailedCase, ...]
    confusion: np.ndarray | None  # voxels `(K, K)` over all cases, rows truth, columns prediction
    confusion_names: tuple[str, ...]
    unit: str  # of hd95 and assd
    settings: MetricsConfig

    def means(self) -> dict[str, float]:
        """`{"dice/foreground": 0.88, "dice/anterior": 0.89, ...}` for a tracker; what is undefined is left out."""
        rows = (*self.labels, self.foreground)
        found = {f"{metric}/{row.name}": one.mean for row in rows for metric, one in row.statistics.items()}
        return {name: mean for name, mean in found.items() if mean is not None}


def summarise(scores: Scores, seed: int = 0) -> Summary:
    """Statistics of every label and region and of the foreground; the bootstrap draws from `seed`."""
    names = [*scores.labels.names, *scores.labels.regions]
    by_name = {name: [one for case in scores.cases for one in case.labels if one.label == name] for name in names}
    matrices = [case.confusion for case in scores.cases if case.confusion is not None]
    units = sorted({one.unit for case in scores.cases for one in case.labels})
    return Summary(
        foreground=_foreground(scores.cases, seed),
        labels=tuple(_label(name, name in scores.labels.regions, found, seed) for name, found in by_name.items()),
        cases=len(scores.cases),
        failed=scores.failed,
        confusion=np.sum(matrices, axis=0) if matrices else None,
        confusion_names=("background", *scores.labels.names) if scores.labels.is_exclusive else (),
        unit="/".join(units) or "mm",
        settings=scores.settings,
    )


def _label(name: str, is_region: bool, found: list[LabelScore], seed: int) -> LabelSummary:
    statistics = {metric: Statistic.of((getattr(one, metric) for one in found), seed) for metric in METRICS}
    return LabelSummary(name, is_region, *_presence(found), _pooled(found), statistics)


def _foreground(cases: Iterable[CaseScores], seed: int) -> LabelSummary:
    cases = tuple(cases)
    found = [one for case in cases for one in case.labels if not one.is_region]
    statistics = {
        metric: Statistic.of((case.foreground(metric) for case in cases), seed) for metric in _FOREGROUND_METRICS
    }
    return LabelSummary(FOREGROUND, False, *_presence(found), _pooled(found), statistics)


def _presence(found: list[LabelScore]) -> tuple[int, int, int]:
    kinds = [one.presence for one in found]
    return kinds.count("absent"), kinds.count("missed"), kinds.count("spurious")


def _pooled(found: list[LabelScore]) -> Counts:
    return reduce(add, (one.counts for one in found), Counts(0, 0, 0, 0))
