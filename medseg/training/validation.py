"""Scores a network in training on whole volumes, through the same predictor that will use it afterwards."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from torch import nn

from medseg.errors import DataError, ManifestError
from medseg.inference.predictor import Predictor
from medseg.metrics import MetricsConfig, mean_over_labels, score_case
from medseg.volume import Segmentation, Volume

Pair = tuple[str, Volume, Segmentation]


@dataclass(frozen=True)
class Validation:
    """Mean Dice of each label over some cases on their source grids; 'score' is the mean over labels and cases.

    A case that cannot be read or compared leaves the others standing and is counted in 'failed_cases'.
    """

    cases: Sequence[Callable[[], Pair]]  # read when needed, so that no volume is kept
    predictor: Callable[[nn.Module], Predictor]

    def __call__(self, network: nn.Module) -> Mapping[str, float]:
        predictor, settings = self.predictor(network), MetricsConfig(distances=False)
        scores = []
        for read in self.cases:
            with contextlib.suppress(DataError, ManifestError):  # told in full when the model is scored at the end
                case, volume, label = read()
                scores.append(score_case(case, predictor.predict(volume), label, settings))
        found = {"score": _mean([mean_over_labels(of_case) for of_case in scores])}
        for index, first in enumerate(scores[0] if scores else ()):
            found[f"dice_{first.label}"] = _mean([of_case[index].dice for of_case in scores])
        return found if len(scores) == len(self.cases) else {**found, "failed_cases": len(self.cases) - len(scores)}


def _mean(values: Sequence[float | None]) -> float:
    """Over the defined values; 0 where none is, so that an empty validation never looks good."""
    defined = [value for value in values if value is not None]
    return fmean(defined) if defined else 0.0
