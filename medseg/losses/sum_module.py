"""Weighted sums of losses: with fixed weights, and with weights that follow the progress of training."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn


class WeightedSum(nn.Module):
    """sum of weight x loss, each of the same logits and label."""

    def __init__(self, losses: Sequence[nn.Module], weights: Sequence[float]) -> None:
        super().__init__()
        self.losses, self.weights = nn.ModuleList(losses), list(weights)

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        terms = [weight * loss(logits, label) for weight, loss in zip(self.weights, self.losses, strict=True)]
        return torch.stack(terms).sum()


class ScheduledSum(nn.Module):
    """sum of weight(progress) x loss: progress is the share of the training steps that are done, 0 to 1."""

    def __init__(self, losses: Sequence[nn.Module], weights: Sequence[Callable[[float], float]]) -> None:
        super().__init__()
        self.losses, self.weights = nn.ModuleList(losses), list(weights)

    def forward(
        self, logits: torch.Tensor | Sequence[torch.Tensor], label: torch.Tensor, progress: float = 1.0
    ) -> torch.Tensor:
        terms = [weight(progress) * loss(logits, label) for weight, loss in zip(self.weights, self.losses, strict=True)]
        return torch.stack(terms).sum()
