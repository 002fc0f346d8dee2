"""Weights for places, alone or after weights for channels."""

from __future__ import annotations

import torch
from torch import nn

from medseg.networks.attention.channel_module import ChannelAttention
from medseg.networks.attention.maps import AttentionMap
from medseg.networks.layers import conv, initialise_he


class SpatialAttention(nn.Module):
    """Features times sigmoid of one convolution over their mean and maximum across channels: 2 k^d + 1 parameters."""

    def __init__(self, dims: int, kernel_size: int) -> None:
        super().__init__()
        self.score, self.map = conv(dims)(2, 1, kernel_size, padding=kernel_size // 2), AttentionMap()
        self.apply(initialise_he)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        summary = torch.cat((features.mean(dim=1, keepdim=True), features.amax(dim=1, keepdim=True)), dim=1)
        weights: torch.Tensor = self.map(torch.sigmoid(self.score(summary)))
        return features * weights


class ConvolutionalBlockAttention(nn.Module):
    """Channel attention, then spatial attention: CBAM."""

    def __init__(self, channel: ChannelAttention, spatial: SpatialAttention) -> None:
        super().__init__()
        self.channel, self.spatial = channel, spatial

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        weighted: torch.Tensor = self.spatial(self.channel(features))
        return weighted
