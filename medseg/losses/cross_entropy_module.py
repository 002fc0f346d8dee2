"""Losses that are a mean over voxels of some function of log p(truth): cross-entropy, weighted, focal."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from medseg.labels import LabelSet
from medseg.losses.precision import at_least_float32
from medseg.losses.ranks import over_ranks


class FocalLoss(nn.Module):
    """Mean of -a (1 - p)^gamma log p over the voxels that count; see FocalConfig. Gamma 0 is the cross-entropy."""

    def __init__(self, labels: LabelSet, gamma: float, alpha: float | None) -> None:
        super().__init__()
        self.labels, self.gamma, self.alpha = labels, gamma, alpha

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        log_p = log_p_of_truth(self.labels, at_least_float32(logits), label)
        terms = -log_p
        if self.gamma > 0:
            terms = terms * share_missed(log_p) ** self.gamma
        if self.alpha is not None:
            terms = terms * torch.where(label != 0, self.alpha, 1 - self.alpha)
        return counted_mean(terms, self.labels.counted(label))


class WeightedCrossEntropy(nn.Module):
    """Weighted mean of -log p(truth), the weights by output; see CrossEntropyConfig."""

    def __init__(self, labels: LabelSet, weights: Sequence[float]) -> None:
        super().__init__()
        self.labels, self.weights = labels, list(weights)

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        logits = at_least_float32(logits)
        terms = -log_p_of_truth(self.labels, logits, label)
        truth = self.labels.one_hot(label)
        by_output = logits.new_tensor(self.weights).view(1, -1, *([1] * (logits.ndim - 2)))
        if self.labels.is_exclusive:
            weights = (truth * by_output).sum(dim=1, keepdim=True)
        else:
            weights = torch.where(truth > 0, by_output, 1.0)
        return weighted_mean(terms, weights, self.labels.counted(label))


def log_p_of_truth(labels: LabelSet, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """log p of the true output `(B, 1, *S)`, or of each overlapping label's truth `(B, S, *S)`."""
    if not labels.is_exclusive:
        return functional.logsigmoid(torch.where(label != 0, logits, -logits))
    # Not torch's cross_entropy: on CUDA its sum has no fixed order. An ignored voxel is 0 in every output.
    return (labels.one_hot(label) * logits.log_softmax(dim=1)).sum(dim=1, keepdim=True)


def share_missed(log_p: torch.Tensor) -> torch.Tensor:
    """1 - p, kept off 0, where a power below 1 has no finite slope."""
    return (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).eps)


def counted_mean(terms: torch.Tensor, counted: torch.Tensor | None) -> torch.Tensor:
    """Mean of terms `(B, C, *S)` over the voxels that count; 0 where none does."""
    if counted is None:
        return terms.mean()
    voxels = over_ranks(counted.sum() * terms.shape[1])
    return over_ranks(terms.masked_fill(~counted, 0.0).sum()) / voxels.clamp(min=1)


def weighted_mean(terms: torch.Tensor, weights: torch.Tensor, counted: torch.Tensor | None) -> torch.Tensor:
    """sum of weight x term / sum of weights over the voxels that count; 0 where none weighs anything."""
    if counted is not None:
        weights = weights * counted
    least = torch.finfo(terms.dtype).tiny
    return over_ranks((weights * terms).sum()) / over_ranks(weights.sum()).clamp(min=least)
