"""A residual encoder in 3D that stops halving its grid and dilates instead: what DeepLab and PSPNet stand on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import nn

from medseg.networks.encoders.residual_plan import stage_steps
from medseg.networks.layers import Normalisation
from medseg.networks.layers import norm as named_norm

Norm = Callable[[int], nn.Module]  # channels -> their norm


def norm_of(name: Normalisation, groups: int) -> Norm:
    """What makes the norm of so many channels, in 3D."""
    return lambda width: named_norm(name, 3, width, groups)


class ResidualEncoder(nn.Module):
    """Image `(B, C, *S)` -> features of each stage: `(B, c1, *S / 4)`, ... down to the output stride.

    He et al., CVPR 2016 (basic blocks), dilated as in Yu et al., CVPR 2017. In place of the 7 x 7 stem and its max pool
    it has two strided 3 x 3 x 3 convolutions, whose gradient is bit-reproducible on CUDA. With widths c1..cn, b1..bn
    blocks and c0 = c1, it has
        stem      27 C c1 + 2 c1
        stage i   27 c(i-1) ci + 27 ci^2 + 4 ci,  the shortcut c(i-1) ci + 2 ci where width or grid change,
                  and (bi - 1) (54 ci^2 + 4 ci)
    parameters.
    """

    def __init__(
        self, in_channels: int, widths: Sequence[int], blocks: Sequence[int], output_stride: int, norm: Norm
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(*normalised_conv(in_channels, widths[0], 3, norm, stride=2), nn.ReLU(inplace=True))
        self.stages = nn.ModuleList(
            nn.Sequential(*_blocks(before, width, count, stride, dilation, norm))
            for before, width, count, (stride, dilation) in zip(
                (widths[0], *widths), widths, blocks, stage_steps(len(widths), output_stride), strict=False
            )
        )

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        features, passed = self.stem(image), []
        for stage in self.stages:
            features = stage(features)
            passed.append(features)
        return passed


class Block(nn.Module):
    """Two convolutions around which the input is added."""

    def __init__(self, in_channels: int, width: int, stride: int, dilation: int, norm: Norm) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *normalised_conv(in_channels, width, 3, norm, stride, dilation),
            nn.ReLU(inplace=True),
            *normalised_conv(width, width, 3, norm, dilation=dilation),
        )
        keeps = in_channels == width and stride == 1
        self.shortcut: nn.Module = (
            nn.Identity() if keeps else nn.Sequential(*normalised_conv(in_channels, width, 1, norm, stride))
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(self.body(features) + self.shortcut(features))


def normalised_conv(
    in_channels: int, width: int, kernel: int, norm: Norm, stride: int = 1, dilation: int = 1
) -> list[nn.Module]:
    """A convolution that keeps the grid but for its stride, and its norm, whose shift stands for a bias."""
    padding = dilation * (kernel // 2)
    convolution = nn.Conv3d(in_channels, width, kernel, stride, padding, dilation, bias=False)
    return [convolution, norm(width)]


def _blocks(in_channels: int, width: int, count: int, stride: int, dilation: int, norm: Norm) -> Iterator[nn.Module]:
    yield Block(in_channels, width, stride, dilation, norm)
    for _ in range(count - 1):
        yield Block(width, width, 1, dilation, norm)
