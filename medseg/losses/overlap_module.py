"""Losses made of true and false positives and negatives: Dice, Jaccard, Tversky, and the focal form of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from medseg.labels import LabelSet
from medseg.losses.precision import at_least_float32
from medseg.losses.ranks import over_ranks


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

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return 1 - overlaps(self.labels, self.weighing, logits, label).mean()


class FocalTverskyLoss(nn.Module):
    """Mean of (1 - overlap)^exponent, where OverlapLoss takes the mean of 1 - overlap; see FocalTverskyConfig."""

    def __init__(self, labels: LabelSet, weighing: Weighing, exponent: float) -> None:
        super().__init__()
        self.labels, self.weighing, self.exponent = labels, weighing, exponent

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return steep_power(1 - overlaps(self.labels, self.weighing, logits, label), self.exponent).mean()


class Sums(NamedTuple):
    """TP, sum p and sum t of each label `(K)`, of each patch too `(B, K)` unless pooled over the batch."""

    hit: torch.Tensor
    predicted: torch.Tensor
    true: torch.Tensor


def overlaps(labels: LabelSet, weighing: Weighing, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """The Tversky index of each label, and of each patch unless pooled."""
    probabilities, truth = masked_outputs(labels, logits, label, weighing.include_background)
    return tversky_index(sums_of(probabilities, truth, weighing.batch), weighing.alpha, weighing.beta, weighing.smooth)


def masked_outputs(
    labels: LabelSet, logits: torch.Tensor, label: torch.Tensor, include_background: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities and truth `(B, K, *S)` of the labels, both 0 in ignored voxels."""
    outputs = slice(None) if include_background else labels.foreground
    probabilities = labels.probabilities(at_least_float32(logits))[:, outputs]
    truth = labels.one_hot(label)[:, outputs]
    counted = labels.counted(label)
    return (probabilities, truth) if counted is None else (probabilities * counted, truth * counted)


def sums_of(probabilities: torch.Tensor, truth: torch.Tensor, batch: bool) -> Sums:
    """The sums over space, and where pooled over the batch, of which other processes may hold a part."""
    axes = tuple(range(2, probabilities.ndim))
    over = (0, *axes) if batch else axes
    sums = (probabilities * truth).sum(over), probabilities.sum(over), truth.sum(over)
    return Sums(*over_ranks(torch.stack(sums))) if batch else Sums(*sums)


def tversky_index(sums: Sums, alpha: float, beta: float, smooth: float) -> torch.Tensor:
    """(2 TP + smooth) / (2 TP + 2 alpha FP + 2 beta FN + smooth), of the shape of the sums."""
    hit, predicted, true = sums
    errors = alpha * (predicted - hit) + beta * (true - hit)
    return (2 * hit + smooth) / (2 * hit + 2 * errors + smooth)


def steep_power(values: torch.Tensor, exponent: float) -> torch.Tensor:
    """values^exponent for values from 0 to 1, below the rounding error a line through 0: no infinite slope there."""
    if exponent == 1:
        return values
    least = 4 * torch.finfo(values.dtype).eps
    return torch.where(
        values > least, values.clamp(min=least) ** exponent, values.clamp(min=0) * least ** (exponent - 1)
    )
