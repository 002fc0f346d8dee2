"""The scores of a whole data set as one value, in which a case that failed stays visible."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from medseg.labels import LabelSet
from medseg.metrics import (
    LabelScore,
    MetricsConfig,
    accuracy_of,
    as_looked_for,
    confusion_matrix,
    mean_over_labels,
    pixel_accuracy,
    score_case,
)
from medseg.volume import Segmentation

FOREGROUND = "foreground"  # name of the mean over labels, background and regions left out


@dataclass(frozen=True, eq=False)
class CaseScores:
    """What was measured in one case."""

    case: str
    labels: tuple[LabelScore, ...]  # the LabelSet's labels, then its regions
    accuracy: float | None  # share of the voxels whose labels are all right, background included
    confusion: np.ndarray | None = None  # voxels `(K, K)`, rows truth, columns prediction; exclusive labels only

    def foreground(self, metric: str = "dice") -> float | None:
        """The mean over the labels that have a value, regions left out; for `accuracy` that of the case."""
        return self.accuracy if metric == "accuracy" else mean_over_labels(self.labels, metric)


@dataclass(frozen=True)
class FailedCase:
    """A case without scores, and why."""

    case: str
    reason: str


@dataclass(frozen=True, eq=False)
class Scores:
    """Every case of an evaluation: scored or failed, none dropped."""

    labels: LabelSet
    cases: tuple[CaseScores, ...]
    failed: tuple[FailedCase, ...] = ()
    settings: MetricsConfig = field(default_factory=MetricsConfig)

    def worst_first(self, metric: str = "dice") -> list[CaseScores]:
        """Cases by rising foreground value of a metric where more is better; those without one come last."""
        return sorted(self.cases, key=lambda case: (_or_infinite(case.foreground(metric)), case.case))


def score(
    case_id: str, prediction: Segmentation, truth: Segmentation, settings: MetricsConfig | None = None
) -> CaseScores:
    """All scores of one case on the truth's grid. Raises GeometryError or LabelError where the two do not compare."""
    labels = tuple(score_case(case_id, prediction, truth, settings))
    prediction = as_looked_for(prediction, truth)
    if not truth.labels.is_exclusive:
        return CaseScores(case_id, labels, pixel_accuracy(prediction, truth))
    confusion = confusion_matrix(prediction, truth)
    return CaseScores(case_id, labels, accuracy_of(confusion), confusion)


def _or_infinite(value: float | None) -> float:
    return np.inf if value is None else value
