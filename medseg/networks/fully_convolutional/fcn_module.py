"""The FCN itself, written once for 2D and 3D, because no library at hand has it in 3D."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from medseg.networks.layers import (
    channel_dropout,
    conv,
    initialise_he,
    interpolated,
    max_pool,
    norm,
    transposed_conv,
)

if TYPE_CHECKING:
    from medseg.networks.fully_convolutional.fcn import FCNConfig

SCORED = {32: 1, 16: 2, 8: 3}  # stride -> depths whose scores are summed


class FCN(nn.Module):
    """Image `(B, C, *S)` -> logits `(B, K, *S)`; see FCNConfig for the paper.

    With channels c1..c5, n1..n5 convolutions a stage, k = 3^D, and a classifier w wide whose first kernel holds f^D
    voxels, it has
        stages       sum over i of  k c(i-1) ci + (ni - 1) k ci^2 + 2 ni ci    (c0 = C; 2 ci: scale and shift of a norm,
                                                                              ci without norm: the bias)
        classifier   f^D c5 w + w  +  w^2 + w
        scores       w K + K, stride 16 also c4 K + K, stride 8 also c3 K + K
        upsampling   4^D K^2 for each fusion: one for stride 16, two for stride 8
    parameters. Weights start Kaiming normal, biases at zero; the learned upsampling starts as linear interpolation and
    the last one, to the image, is fixed to it, as in the paper.
    """

    def __init__(self, config: FCNConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        dims, widths, wide = config.spatial_dims, config.channels, config.classifier_width
        self.stages = nn.ModuleList(
            _stage(config, before, width, count)
            for before, width, count in zip((in_channels, *widths), widths, config.convs, strict=False)
        )
        kernel = config.classifier_kernel
        self.classifier = nn.Sequential(
            conv(dims)(widths[-1], wide, kernel, padding=kernel // 2),
            nn.ReLU(inplace=True),
            channel_dropout(dims, config.dropout),
            conv(dims)(wide, wide, 1),
            nn.ReLU(inplace=True),
            channel_dropout(dims, config.dropout),
        )
        scored = (wide, widths[3], widths[2])[: SCORED[config.stride]]  # coarsest first
        self.scores = nn.ModuleList(conv(dims)(width, out_channels, 1) for width in scored)
        self.upsamplers = nn.ModuleList(
            transposed_conv(dims)(out_channels, out_channels, 4, stride=2, padding=1, bias=False) for _ in scored[1:]
        )
        self.apply(initialise_he)
        for upsampler in self.upsamplers:
            _initialise_linear(upsampler.get_parameter("weight"))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features, pooled = image, []
        for stage in self.stages:
            features = stage(features)
            pooled.append(features)

        coarsest, *finer = self.scores
        logits: torch.Tensor = coarsest(self.classifier(features))
        for score, upsampler, skip in zip(finer, self.upsamplers, (pooled[3], pooled[2]), strict=False):
            logits = upsampler(logits) + score(skip)
        return interpolated(logits, image.shape[2:])


def _stage(config: FCNConfig, in_channels: int, width: int, count: int) -> nn.Sequential:
    """`count` times convolution, norm, ReLU; then a pool that halves the grid."""
    dims, parts = config.spatial_dims, []
    bias = config.normalisation == "none"  # a norm has a shift of its own, which stands for it
    for index in range(count):
        parts.append(conv(dims)(width if index else in_channels, width, 3, padding=1, bias=bias))
        parts += [norm(config.normalisation, dims, width, config.groups), nn.ReLU(inplace=True)]
    return nn.Sequential(*parts, max_pool(dims)(2))


def _initialise_linear(weight: torch.Tensor) -> None:
    """Makes a transposed convolution of kernel 4 and stride 2, weights `(K, K, 4, ...)`, interpolate each channel."""
    kernel = torch.ones(())
    for _ in range(weight.ndim - 2):
        kernel = kernel[..., None] * torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        weight.zero_()
        for channel in range(len(weight)):
            weight[channel, channel] = kernel
