"""Convolutions, norms and pools by number of axes and by name, so that a network is written once for 2D and 3D."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional

LEAKY_SLOPE = 0.01  # Isensee et al., Nature Methods 2021

Normalisation = Literal["instance", "batch", "group", "none"]
Activation = Literal["leaky_relu", "relu", "prelu", "elu", "gelu", "silu"]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "leaky_relu": lambda: nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "prelu": lambda: nn.PReLU(init=LEAKY_SLOPE),
    "elu": lambda: nn.ELU(inplace=True),
    "gelu": nn.GELU,
    "silu": lambda: nn.SiLU(inplace=True),
}


def conv(dims: int) -> Any:
    """Conv2d or Conv3d, the class."""
    return (nn.Conv2d, nn.Conv3d)[dims - 2]


def transposed_conv(dims: int) -> Any:
    """ConvTranspose2d or ConvTranspose3d, the class."""
    return (nn.ConvTranspose2d, nn.ConvTranspose3d)[dims - 2]


def max_pool(dims: int) -> Any:
    """MaxPool2d or MaxPool3d, the class."""
    return (nn.MaxPool2d, nn.MaxPool3d)[dims - 2]


def average_pool(dims: int) -> Any:
    """AvgPool2d or AvgPool3d, the class."""
    return (nn.AvgPool2d, nn.AvgPool3d)[dims - 2]


def channel_dropout(dims: int, share: float) -> nn.Module:
    """Dropout of whole channels (Tompson et al., CVPR 2015)."""
    return (nn.Dropout2d, nn.Dropout3d)[dims - 2](share)


def norm(name: Normalisation, dims: int, width: int, groups: int = 8) -> nn.Module:
    """A normalisation with scale and shift; group normalisation: Wu and He, ECCV 2018."""
    match name:
        case "instance":
            return (nn.InstanceNorm2d, nn.InstanceNorm3d)[dims - 2](width, affine=True)
        case "batch":
            return (nn.BatchNorm2d, nn.BatchNorm3d)[dims - 2](width)
        case "group":
            return nn.GroupNorm(groups, width)
        case _:
            return nn.Identity()


def activation(name: Activation) -> nn.Module:
    """An activation by its name."""
    return _ACTIVATIONS[name]()


def linear_mode(dims: int) -> str:
    """What torch calls linear interpolation over that many axes."""
    return ("bilinear", "trilinear")[dims - 2]


def interpolated(features: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Features `(B, C, *S)` on a grid of `size`, linearly; the grids share their outer borders, not their centres."""
    if tuple(features.shape[2:]) == tuple(size):
        return features
    return functional.interpolate(features, size=list(size), mode=linear_mode(features.ndim - 2))


def initialise_he(module: nn.Module) -> None:
    """Kaiming normal weights (He et al., ICCV 2015; a = 0.01, fan in), biases at zero; for `network.apply`."""
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=LEAKY_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
