"""Losses that weigh errors by their distance to a boundary."""

from __future__ import annotations

import torch
from torch import nn

from medseg.labels import LabelSet
from medseg.losses.cross_entropy_module import counted_mean, log_p_of_truth, weighted_mean
from medseg.losses.distance_maps import to_other_side
from medseg.losses.precision import at_least_float32

_HALF = 0.5  # voxel: a boundary runs half-way between the centres on its two sides


class BoundaryLoss(nn.Module):
    """Mean of distance to the label's boundary x |p - t|; see BoundaryConfig."""

    def __init__(self, labels: LabelSet) -> None:
        super().__init__()
        self.labels = labels

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        probabilities = self.labels.probabilities(at_least_float32(logits))[:, self.labels.foreground]
        truth = self.labels.one_hot(label)[:, self.labels.foreground]
        counted = self.labels.counted(label)
        distance = (to_other_side(truth > 0, counted, probabilities.dtype) - _HALF).clamp(min=0)
        # p - t has the sign of the side that the voxel is on, so that this is |p - t| with a slope at 0.
        return counted_mean(distance * (probabilities - truth) * (1 - 2 * truth), counted)


class BoundaryCrossEntropy(nn.Module):
    """Mean of -log p(truth), weighed by closeness to a boundary; see BoundaryCEConfig."""

    def __init__(self, labels: LabelSet, w0: float, sigma: float) -> None:
        super().__init__()
        self.labels, self.w0, self.sigma = labels, w0, sigma

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        logits, truth, counted = at_least_float32(logits), self.labels.one_hot(label), self.labels.counted(label)
        distance = to_other_side(truth > 0, counted, logits.dtype)
        if self.labels.is_exclusive:
            distance = (distance * truth).sum(dim=1, keepdim=True)
        closeness = torch.exp(-((distance - _HALF) ** 2) / (2 * self.sigma**2)).masked_fill(distance == 0, 0.0)
        terms = -log_p_of_truth(self.labels, logits, label)
        return weighted_mean(terms, 1 + self.w0 * closeness, counted)


class HausdorffLoss(nn.Module):
    """Mean of (p - t)^2 x distances to the boundaries of prediction and truth; see HausdorffConfig."""

    def __init__(self, labels: LabelSet, alpha: float) -> None:
        super().__init__()
        self.labels, self.alpha = labels, alpha

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        probabilities = self.labels.probabilities(at_least_float32(logits))[:, self.labels.foreground]
        truth = self.labels.one_hot(label)[:, self.labels.foreground]
        counted = self.labels.counted(label)
        masks = (probabilities > 0.5, truth > 0)
        predicted, true = (to_other_side(mask, counted, probabilities.dtype) ** self.alpha for mask in masks)
        return counted_mean((predicted + true) * (probabilities - truth) ** 2, counted)
