"""Weights for channels, the part that squeeze-and-excitation and CBAM have in common."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from medseg.networks.attention.maps import AttentionMap
from medseg.networks.layers import LEAKY_SLOPE

_LEAST_HIDDEN = 8  # narrow stages would squeeze to one or two units


class ChannelAttention(nn.Module):
    """Features times sigmoid(W2 f(W1 mean)), of each channel's mean; with peaks the same of its maximum is added.

    With c channels and h = max(c / reduction, 8) hidden units it has 2 h c + h + c parameters. f is a leaky ReLU where
    the papers have a ReLU: after instance norm all images have much the same means, so that a unit may start dead.
    """

    def __init__(self, width: int, reduction: int, with_peaks: bool) -> None:
        super().__init__()
        hidden = max(width // reduction, _LEAST_HIDDEN)
        self.squeeze, self.excite = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.with_peaks, self.map = with_peaks, AttentionMap()
        for layer in (self.squeeze, self.excite):
            nn.init.kaiming_normal_(layer.weight, a=LEAKY_SLOPE)
            nn.init.zeros_(layer.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        places = tuple(range(2, features.ndim))
        score = self._score(features.mean(dim=places))
        if self.with_peaks:
            score = score + self._score(features.amax(dim=places))
        weights: torch.Tensor = self.map(torch.sigmoid(score).reshape(*score.shape, *[1] * len(places)))
        return features * weights

    def _score(self, summary: torch.Tensor) -> torch.Tensor:
        score: torch.Tensor = self.excite(functional.leaky_relu(self.squeeze(summary), LEAKY_SLOPE))
        return score
