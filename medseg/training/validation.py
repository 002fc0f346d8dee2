"""Scores a network in training on whole volumes, through the same predictor that will use it afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from medseg.devices import ALONE, World
from medseg.errors import DataError, ManifestError
from medseg.inference.predictor import Predictor
from medseg.metrics import MetricsConfig, mean_over_labels, score_case
from medseg.volume import Segmentation, Volume

Pair = tuple[str, Volume, Segmentation]


@dataclass(frozen=True)
class Validation:
    """Mean Dice of each label over some cases on their source grids; 'score' is the mean over labels and cases.

    A case that cannot be read or compared leaves the others standing and is counted in 'failed_cases'. Processes that
    train together share the cases out, and each hears the scores of all.
    """

    cases: Sequence[Callable[[], Pair]]  # read when needed, so that no volume is kept
    predictor: Callable[[nn.Module], Predictor]
    labels: Sequence[str]
    world: World = ALONE

    def __call__(self, network: nn.Module) -> Mapping[str, float]:
        predictor, settings = self.predictor(network), MetricsConfig(distances=False)
        dice, failed = np.full((len(self.cases), len(self.labels) + 1), np.nan), 0
        for index in range(self.world.rank, len(self.cases), self.world.size):
            try:
                case, volume, label = self.cases[index]()
                found = score_case(case, predictor.predict(volume), label, settings)
            except (DataError, ManifestError):  # told in full when the model is scored at the end
                failed += 1
                continue
            of_labels = {one.label: one.dice for one in found}
            values = [*(of_labels.get(name) for name in self.labels), mean_over_labels(found)]
            dice[index] = [np.nan if value is None else value for value in values]
        dice, failed = self._of_all(dice, failed, predictor.device)
        means = [float(np.nanmean(one)) if np.isfinite(one).any() else 0.0 for one in dice.T]
        scores = {"score": means[-1]} | {f"dice_{name}": mean for name, mean in zip(self.labels, means, strict=False)}
        return {**scores, "failed_cases": failed} if failed else scores

    def _of_all(self, dice: np.ndarray, failed: int, device: torch.device) -> tuple[np.ndarray, int]:
        """What the processes found together: a case without a value is NaN in all of them."""
        if self.world.size == 1:
            return dice, failed
        known = np.isfinite(dice)
        sent = torch.from_numpy(np.stack([np.where(known, dice, 0.0), known])).to(device)
        values, counts = self.world.total(sent).cpu().numpy()
        every = int(self.world.total(torch.tensor([failed], device=device)))
        return np.where(counts > 0, values, np.nan), every
