"""Dice and Tversky losses in one module, because the first is the second with both weights 0.5."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from medseg.labels import LabelSet
from medseg.losses.precision import at_least_float32


@dataclass(frozen=True)
class Weighing:
    """How false positives (alpha) and false negatives (beta) weigh, and over what the sums run; see TverskyConfig."""

    alpha: float
    beta: float
    batch: bool
    include_background: bool
    smooth: float


class OverlapLoss(nn.Module):
    """1 - mean of (2 TP + smooth) / (2 TP + 2 alpha FP + 2 beta FN + smooth) over labels, and patches unless pooled."""

    def __init__(self, labels: LabelSet, weighing: Weighing) -> None:
        super().__init__()
        self.labels, self.weighing = labels, weighing
        self.outputs = slice(None) if weighing.include_background else labels.foreground

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        probabilities = self.labels.probabilities(at_least_float32(logits))[:, self.outputs]
        truth = self.labels.one_hot(label)[:, self.outputs]
        counted = self.labels.counted(label)
        if counted is not None:
            probabilities, truth = probabilities * counted, truth * counted
        axes = tuple(range(2, logits.ndim))
        over = (0, *axes) if self.weighing.batch else axes
        hit, predicted, true = (probabilities * truth).sum(over), probabilities.sum(over), truth.sum(over)
        alpha, beta, smooth = self.weighing.alpha, self.weighing.beta, self.weighing.smooth
        errors = alpha * (predicted - hit) + beta * (true - hit)
        return 1 - ((2 * hit + smooth) / (2 * hit + 2 * errors + smooth)).mean()
