"""The head of HRNetV2, which neither timm nor segmentation-models-pytorch has."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from medseg.networks.layers import interpolated


class JoinedGrids(nn.Module):
    """Features at strides 4, 8, 16 and 32, the last four given -> all of them at stride 4, mixed by a convolution.

    With widths that add up to w it has w^2 + 2 w parameters.
    """

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.width = sum(widths)
        self.mix = nn.Sequential(
            nn.Conv2d(self.width, self.width, 1, bias=False), nn.BatchNorm2d(self.width), nn.ReLU(inplace=True)
        )

    def forward(self, features: Sequence[torch.Tensor]) -> torch.Tensor:
        grids = features[-4:]
        mixed: torch.Tensor = self.mix(torch.cat([interpolated(grid, grids[0].shape[2:]) for grid in grids], dim=1))
        return mixed


def head(width: int, out_channels: int) -> nn.Sequential:
    """Features at stride 4 -> logits on the image's grid."""
    return nn.Sequential(nn.Conv2d(width, out_channels, 1), nn.Upsample(scale_factor=4, mode="bilinear"))
