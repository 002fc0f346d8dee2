"""Scores a network in training on whole volumes, through the same predictor that will use it afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from torch import nn

from medseg.inference.predictor import Predictor
from medseg.metrics import MetricsConfig, mean_over_labels, score_case
from medseg.volume import Segmentation, Volume

Pair = tuple[str, Volume, Segmentation]


@dataclass(frozen=True)
class Validation:
    """Mean Dice of each label over some cases on their source grids; 'score' is the mean over labels and cases."""

    cases: Sequence[Callable[[], Pair]]  # read when needed, so that no volume is kept
    predictor: Callable[[nn.Module], Predictor]

    def __call__(self, network: nn.Module) -> Mapping[str, float]:
        predictor, settings = self.predictor(network), MetricsConfig(distances=False)
        pairs = (read() for read in self.cases)
        scores = [score_case(case, predictor.predict(volume), label, settings) for case, volume, label in pairs]
        foreground = [mean_over_labels(of_case) for of_case in scores]
        found = {"score": _mean(foreground)}
        for index, first in enumerate(scores[0]):
            found[f"dice_{first.label}"] = _mean([of_case[index].dice for of_case in scores])
        return found


def _mean(values: Sequence[float | None]) -> float:
    """Over the defined values; 0 where none is, so that an empty validation never looks good."""
    defined = [value for value in values if value is not None]
    return fmean(defined) if defined else 0.0
