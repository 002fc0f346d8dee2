"""The encoder of nnU-Net's ResEnc, of the U-Net's own parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from medseg.networks.layers import activation, average_pool
from medseg.networks.unets.unet_module import conv_norm

if TYPE_CHECKING:
    from medseg.networks.unets.unet import UNetConfig


def residual_encoder(config: UNetConfig, blocks: Sequence[int], in_channels: int) -> nn.ModuleList:
    """One module a stage, finest first: the stem in front of the first, then `blocks[i]` residual blocks.

    With channels c0..cn, kernels of k voxels and bi blocks a stage it has
        stem     k C c0 + 2 c0
        stage i  k c(i-1) ci + (2 bi - 1) k ci^2 + 4 bi ci, and c(i-1) ci + 2 ci where they differ      (c(-1) = c0)
    parameters; the decoder and the head are as UNet counts them, and 2 c0 and the like are scale and shift.
    """
    widths, kernels, one = config.channels, config.stage_kernels(), (1,) * config.spatial_dims
    stem = [*conv_norm(config, in_channels, widths[0], kernels[0], one), activation(config.activation)]
    stages = nn.ModuleList()
    for stage, (stride, kernel, count) in enumerate(zip(config.stage_strides(), kernels, blocks, strict=True)):
        before, width = widths[max(stage - 1, 0)], widths[stage]
        first = ResidualBlock(config, before, width, kernel, stride)
        others = [ResidualBlock(config, width, width, kernel, one) for _ in range(count - 1)]
        stages.append(nn.Sequential(*(stem if stage == 0 else ()), first, *others))
    return stages


class ResidualBlock(nn.Module):
    """Two convolutions, the first strided, and a shortcut around them that pools instead of skipping voxels."""

    def __init__(
        self, config: UNetConfig, in_channels: int, width: int, kernel: tuple[int, ...], stride: tuple[int, ...]
    ) -> None:
        super().__init__()
        dims, one = config.spatial_dims, (1,) * config.spatial_dims
        first = conv_norm(config, in_channels, width, kernel, stride)
        second = conv_norm(config, width, width, kernel, one)
        self.body = nn.Sequential(*first, activation(config.activation), *second)
        pool = [average_pool(dims)(stride)] if stride != one else []
        widened = conv_norm(config, in_channels, width, one, one) if in_channels != width else []
        self.shortcut = nn.Sequential(*pool, *widened)
        self.activation = activation(config.activation)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        activated: torch.Tensor = self.activation(self.body(features) + self.shortcut(features))
        return activated
