"""PSPNet in 3D, which segmentation-models-pytorch does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from medseg.networks.encoders.residual_encoder import Norm, ResidualEncoder, norm_of, normalised_conv
from medseg.networks.layers import initialise_he, interpolated

if TYPE_CHECKING:
    from medseg.networks.fully_convolutional.pspnet import PSPNetConfig


class PSPNet(nn.Module):
    """Image `(B, C, X, Y, Z)` -> logits `(B, K, X, Y, Z)`; see PSPNetConfig for the paper.

    With cn channels at the end of the encoder, m bins and a fusing convolution w wide, it has
        encoder   as ResidualEncoder says
        pyramid   cn^2 (m parts of cn / m each), and 2 cn / m for each bin above 1, cn / m for a bin of 1: its bias
        fusion    27 (2 cn) w + 2 w
        head      w K + K
    parameters. Weights start Kaiming normal, biases at zero.
    """

    def __init__(self, config: PSPNetConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        norm, last, width = norm_of(config.normalisation, config.groups), config.channels[-1], config.width
        self.encoder = ResidualEncoder(in_channels, config.channels, config.blocks, config.divisor()[0], norm)
        part = last // len(config.bins)
        self.pyramid = nn.ModuleList(_pooled(last, part, bins, norm) for bins in config.bins)
        self.fusion = nn.Sequential(*normalised_conv(2 * last, width, 3, norm), nn.ReLU(inplace=True))
        self.head = nn.Sequential(nn.Dropout3d(config.dropout), nn.Conv3d(width, out_channels, 1))
        self.apply(initialise_he)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.encoder(image)[-1]
        parts = [interpolated(pooled(features), features.shape[2:]) for pooled in self.pyramid]
        return interpolated(self.head(self.fusion(torch.cat((features, *parts), dim=1))), image.shape[2:])


def _pooled(in_channels: int, width: int, bins: int, norm: Norm) -> nn.Sequential:
    """Means over bins x bins x bins parts of the grid; of a single one no norm can take a variance."""
    single = bins == 1
    after = nn.Identity() if single else norm(width)
    return nn.Sequential(
        nn.AdaptiveAvgPool3d(bins), nn.Conv3d(in_channels, width, 1, bias=single), after, nn.ReLU(inplace=True)
    )
