"""The weighted sum of losses."""

from __future__ import annotations

from collections.abc import Sequence

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
