"""Convolutions that step out of bf16 on CPU where its kernels are wrong, so that no patch size is a trap.

Where the kernel is longer than the grid, for instance 3 on 2 voxels, oneDNN's bf16 kernels read and write outside their
buffers: NaN, noise or a crash. In 3D it is the weight gradient, along the first spatial axis (torch 2.13, AVX-512 CPUs
without AMX); in 2D, with a stride, the weight gradient and the result itself, along the last axis (torch 2.13 and 2.15,
CPUs with AMX). Such grids are a network's coarsest stage, so that float32 there costs next to nothing.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)


class ShallowConv2d(nn.Conv2d):
    """A Conv2d that is exact on grids shallower than its kernel."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if _is_shallow(input, self.kernel_size) and _is_cpu_autocast(input):
            with torch.autocast("cpu", enabled=False):
                return super().forward(input.float())
        return super().forward(input)


class ShallowConv3d(nn.Conv3d):
    """A Conv3d that is exact on grids shallower than its kernel."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if _is_shallow(input, self.kernel_size) and _is_cpu_autocast(input):
            with torch.autocast("cpu", enabled=False):
                return super().forward(input.float())
        return super().forward(input)


class ShallowConvTranspose3d(nn.ConvTranspose3d):
    """A ConvTranspose3d that is exact on grids shallower than its kernel; its output is the grid that counts."""

    def forward(self, input: torch.Tensor, output_size: list[int] | None = None) -> torch.Tensor:
        if input.shape[2] * self.stride[0] < self.kernel_size[0] and _is_cpu_autocast(input):
            with torch.autocast("cpu", enabled=False):
                return super().forward(input.float(), output_size)
        return super().forward(input, output_size)


def guard_shallow_grids(network: N) -> N:
    """The same network, its convolutions turned into those above; parameters and their names stay."""
    for module in network.modules():
        if type(module) is nn.Conv2d:
            module.__class__ = ShallowConv2d
        elif type(module) is nn.Conv3d:
            module.__class__ = ShallowConv3d
        elif type(module) is nn.ConvTranspose3d:
            module.__class__ = ShallowConvTranspose3d
    return network


def _is_shallow(image: torch.Tensor, kernel: tuple[int, ...]) -> bool:
    return any(size < length for size, length in zip(image.shape[2:], kernel, strict=True))


def _is_cpu_autocast(image: torch.Tensor) -> bool:
    return image.device.type == "cpu" and torch.is_autocast_enabled("cpu")
