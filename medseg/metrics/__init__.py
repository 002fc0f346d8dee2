"""How well a prediction agrees with the truth: overlap, surface distances and volumes, case by case."""

from medseg.metrics.config import METRICS, MetricsConfig
from medseg.metrics.overlap import Counts, accuracy_of, as_looked_for, confusion_matrix, pixel_accuracy
from medseg.metrics.score import LabelScore, check_comparable, mean_over_labels, score_case

__all__ = [
    "METRICS",
    "Counts",
    "LabelScore",
    "MetricsConfig",
    "accuracy_of",
    "as_looked_for",
    "check_comparable",
    "confusion_matrix",
    "mean_over_labels",
    "pixel_accuracy",
    "score_case",
]
