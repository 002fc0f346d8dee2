"""The attention gate of a skip."""

from __future__ import annotations

import torch
from torch import nn

from medseg.networks.attention.maps import AttentionMap
from medseg.networks.layers import conv, initialise_he


class AttentionGate(nn.Module):
    """Skip times sigmoid(v · relu(Wx skip + Wg coarser + b) + a): equations 1 and 2 of Oktay et al., without a norm.

    Both come as `(B, width, *S)`. With c channels and h = max(c / 2, 1) hidden ones it has 2 h c + 2 h + 1 parameters.
    """

    def __init__(self, dims: int, width: int) -> None:
        super().__init__()
        hidden = max(width // 2, 1)
        self.of_skip = conv(dims)(width, hidden, kernel_size=1, bias=False)
        self.of_coarser = conv(dims)(width, hidden, kernel_size=1)
        self.score, self.map = conv(dims)(hidden, 1, kernel_size=1), AttentionMap()
        self.apply(initialise_he)

    def forward(self, skip: torch.Tensor, coarser: torch.Tensor) -> torch.Tensor:
        asked = torch.relu(self.of_skip(skip) + self.of_coarser(coarser))
        weights: torch.Tensor = self.map(torch.sigmoid(self.score(asked)))
        return skip * weights
