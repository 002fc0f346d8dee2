"""Convolutions that step out of bf16 on CPU where its kernels are wrong, so that no patch size is a trap.

Where the kernel is longer than the grid, for instance 3 on 2 voxels, oneDNN's bf16 kernels read and write outside their
buffers: NaN, noise or a crash. In 3D it is the weight gradient, along the first spatial axis (torch 2.13, AVX-512 CPUs
without AMX); in 2D, with a stride, the weight gradient and the result itself, along the last axis (torch 2.13 and 2.15,
CPUs with AMX). Such grids are a network's coarsest stage, so that float32 there costs next to nothing.
"""

from __future__ import annotations

from functools import cache
from typing import Any, TypeVar

import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)


class _Exact:
    """Laid over a convolution's class: exact on grids shallower than its kernel."""

    kernel_size: tuple[int, ...]

    def forward(self, input: torch.Tensor, *more: Any, **named: Any) -> Any:
        forward = super().forward  # type: ignore[misc]
        if self.is_shallow(input) and _is_cpu_autocast(input):
            with torch.autocast("cpu", enabled=False):
                return forward(input.float(), *more, **named)
        return forward(input, *more, **named)

    def is_shallow(self, image: torch.Tensor) -> bool:
        return any(size < length for size, length in zip(image.shape[2:], self.kernel_size, strict=True))


class _ExactTransposed(_Exact):
    """The same over a transposed convolution's class; its output is the grid that counts."""

    stride: tuple[int, ...]

    def is_shallow(self, image: torch.Tensor) -> bool:
        return image.shape[2] * self.stride[0] < self.kernel_size[0]


def guard_shallow_grids(network: N) -> N:
    """The same network, its convolutions made exact as above, those of classes derived from torch's too.

    Parameters and their names stay.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose3d) and not isinstance(module, _Exact):
            kind: Any = type(module)
            module.__class__ = _guarded(kind)  # type: ignore[assignment]  # a subclass of what it was
    return network


@cache
def _guarded(kind: type[nn.Module]) -> type[nn.Module]:
    """The class with the guard over it, the same one for every convolution of that class."""
    guard = _ExactTransposed if issubclass(kind, nn.ConvTranspose3d) else _Exact
    return type(f"Shallow{kind.__name__}", (guard, kind), {})


def _is_cpu_autocast(image: torch.Tensor) -> bool:
    return image.device.type == "cpu" and torch.is_autocast_enabled("cpu")
