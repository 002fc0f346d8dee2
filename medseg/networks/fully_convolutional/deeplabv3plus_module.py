"""DeepLabV3+ in 3D, which segmentation-models-pytorch does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from medseg.networks.encoders.residual_encoder import Norm, ResidualEncoder, norm_of, normalised_conv
from medseg.networks.layers import initialise_he, interpolated

if TYPE_CHECKING:
    from medseg.networks.fully_convolutional.deeplabv3plus import DeepLabV3PlusConfig


class DeepLabV3Plus(nn.Module):
    """Image `(B, C, X, Y, Z)` -> logits `(B, K, X, Y, Z)`; see DeepLabV3PlusConfig for the paper.

    With an encoder from c1 to cn channels, pyramid and decoder w wide, low-level features squeezed to l, it has
        encoder   as ResidualEncoder says
        pyramid   cn w + 2 w  +  3 (27 cn + cn w + 2 w)  +  cn w + w (the pooled branch, biased)  +  5 w^2 + 2 w
        low       c1 l + 2 l
        decoder   27 (w + l) + (w + l) w + 2 w  +  27 w + w^2 + 2 w
        head      w K + K
    parameters. Weights start Kaiming normal, biases at zero.
    """

    def __init__(self, config: DeepLabV3PlusConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        norm, width, low = norm_of(config.normalisation, config.groups), config.width, config.low_level_width
        self.encoder = ResidualEncoder(in_channels, config.channels, config.blocks, config.output_stride, norm)
        self.pyramid = AtrousPyramid(config.channels[-1], width, config.rates, norm)
        self.squeeze = nn.Sequential(*normalised_conv(config.channels[0], low, 1, norm), nn.ReLU(inplace=True))
        self.decoder = nn.Sequential(*_separable(width + low, width, 1, norm), *_separable(width, width, 1, norm))
        self.head = nn.Sequential(nn.Dropout3d(config.dropout), nn.Conv3d(width, out_channels, 1))
        self.apply(initialise_he)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        fine, *_, coarse = self.encoder(image)
        context = interpolated(self.pyramid(coarse), fine.shape[2:])
        features = self.decoder(torch.cat((context, self.squeeze(fine)), dim=1))
        return interpolated(self.head(features), image.shape[2:])


class AtrousPyramid(nn.Module):
    """Features `(B, C, *S)` -> `(B, W, *S)`: a 1 x 1 x 1 branch, atrous ones at several rates, and the mean of all."""

    def __init__(self, in_channels: int, width: int, rates: tuple[int, ...], norm: Norm) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [nn.Sequential(*normalised_conv(in_channels, width, 1, norm), nn.ReLU(inplace=True))]
            + [nn.Sequential(*_separable(in_channels, width, rate, norm)) for rate in rates]
        )
        # Of the single voxel that is left, no norm can take a variance.
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Conv3d(in_channels, width, 1), nn.ReLU(inplace=True))
        joined = (len(rates) + 2) * width
        self.project = nn.Sequential(*normalised_conv(joined, width, 1, norm), nn.ReLU(inplace=True))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        mean = self.pooled(features).expand(-1, -1, *features.shape[2:])
        parts = [branch(features) for branch in self.branches]
        projected: torch.Tensor = self.project(torch.cat((*parts, mean), dim=1))
        return projected


def _separable(in_channels: int, width: int, rate: int, norm: Norm) -> list[nn.Module]:
    """An atrous convolution of each channel by itself, then one across channels (Chollet, CVPR 2017)."""
    return [
        nn.Conv3d(in_channels, in_channels, 3, padding=rate, dilation=rate, groups=in_channels, bias=False),
        nn.Conv3d(in_channels, width, 1, bias=False),
        norm(width),
        nn.ReLU(inplace=True),
    ]
