"""The U-Net itself, in one screen or two, because no single class of MONAI covers the choices of its config."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

if TYPE_CHECKING:
    from medseg.networks.unet import UNetConfig

LEAKY_SLOPE = 0.01  # Isensee et al. 2021

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "leaky_relu": lambda: nn.LeakyReLU(LEAKY_SLOPE, inplace=True),
    "relu": lambda: nn.ReLU(inplace=True),
    "prelu": lambda: nn.PReLU(init=LEAKY_SLOPE),
    "elu": lambda: nn.ELU(inplace=True),
    "gelu": nn.GELU,
    "silu": lambda: nn.SiLU(inplace=True),
}


class UNet(nn.Module):
    """Image `(B, C, *S)` -> logits `(B, K, *S)`; see UNetConfig for the papers.

    With channels c0..cn, strides s1..sn, kernels of k voxels and d convolutions a stage, the plain network with
    instance norm, transposed convolutions and concatenation has
        encoder   sum over i of k c(i-1) ci + (d - 1) k ci^2 + 2 d ci        (c(-1) = C; 2 ci: scale and shift)
        decoder   sum over i < n of  prod(s(i+1)) c(i+1) ci + ci  +  2 k ci^2 + (d - 1) k ci^2 + 2 d ci
        head      c0 K + K
    parameters. Weights start Kaiming normal (He et al., ICCV 2015; a = 0.01, fan in), biases at zero.
    """

    def __init__(self, config: UNetConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        widths, strides, kernels = config.channels, config.stage_strides(), config.stage_kernels()
        coarser = range(len(widths) - 1)
        self.encoder = nn.ModuleList(
            Stage(config, before, width, kernel, stride)
            for before, width, kernel, stride in zip((in_channels, *widths), widths, kernels, strides, strict=False)
        )
        self.upsamplers = nn.ModuleList(_upsampler(config, widths[i + 1], widths[i], strides[i + 1]) for i in coarser)
        joined = 2 if config.skips == "concatenate" else 1
        self.decoder = nn.ModuleList(
            Stage(config, joined * widths[i], widths[i], kernels[i], (1,) * config.spatial_dims) for i in coarser
        )
        self.heads = nn.ModuleList(
            _conv(config)(widths[i], out_channels, kernel_size=1) for i in range(1 + config.deep_supervision)
        )
        self.skips, self.checkpointing = config.skips, config.checkpointing
        self.apply(_initialise)

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        features, passed = image, []
        for stage in self.encoder:
            features = self._run(stage, features)
            passed.append(features)
        passed.pop()

        logits: list[torch.Tensor] = []  # coarsest first
        heads = len(self.heads) if self.training else 1
        for i in reversed(range(len(self.decoder))):
            features = self._run(self.decoder[i], self._join(self.upsamplers[i](features), passed.pop()))
            if i < heads:
                logits.append(self.heads[i](features))
        return logits[::-1] if len(logits) > 1 else logits[0]

    def _join(self, features: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        match self.skips:
            case "concatenate":
                return torch.cat((features, skip), dim=1)
            case "add":
                return features + skip
            case _:
                return features

    def _run(self, stage: nn.Module, features: torch.Tensor) -> torch.Tensor:
        if self.checkpointing and self.training:
            recomputed: torch.Tensor = checkpoint(stage, features, use_reentrant=False)
            return recomputed
        result: torch.Tensor = stage(features)
        return result


class Stage(nn.Module):
    """[pool], then `convs` times convolution, normalisation, dropout, activation; residual: a shortcut around all."""

    def __init__(
        self, config: UNetConfig, in_channels: int, width: int, kernel: tuple[int, ...], stride: tuple[int, ...]
    ) -> None:
        super().__init__()
        one = (1,) * config.spatial_dims
        pooled = config.downsampling != "strided" and stride != one
        self.pool = _pool(config, stride) if pooled else nn.Identity()
        stride = one if pooled else stride
        parts = _conv_norm(config, in_channels, width, kernel, stride)
        for _ in range(config.convs - 1):
            parts += [_ACTIVATIONS[config.activation](), *_conv_norm(config, width, width, kernel, one)]
        self.body = nn.Sequential(*parts)
        self.shortcut = _shortcut(config, in_channels, width, stride) if config.residual else None
        self.activation = _ACTIVATIONS[config.activation]()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = self.pool(features)
        result = self.body(features)
        if self.shortcut is not None:
            result = result + self.shortcut(features)
        activated: torch.Tensor = self.activation(result)
        return activated


def _conv_norm(
    config: UNetConfig, in_channels: int, width: int, kernel: tuple[int, ...], stride: tuple[int, ...]
) -> list[nn.Module]:
    """Convolution that keeps the grid but for its stride, normalisation, dropout."""
    padding = tuple(size // 2 for size in kernel)
    subtracted = config.normalisation in ("instance", "batch")  # a bias would be taken off again with the mean
    convolution = _conv(config)(in_channels, width, kernel, stride, padding, bias=not subtracted)
    parts: list[nn.Module] = [convolution, *_norm(config, width)]
    if config.dropout > 0:
        parts.append((nn.Dropout2d, nn.Dropout3d)[config.spatial_dims - 2](config.dropout))
    return parts


def _shortcut(config: UNetConfig, in_channels: int, width: int, stride: tuple[int, ...]) -> nn.Module:
    """What a residual stage adds: its input, brought to the stage's width and grid where they differ."""
    if in_channels == width and set(stride) == {1}:
        return nn.Identity()
    return nn.Sequential(*_conv_norm(config, in_channels, width, (1,) * config.spatial_dims, stride))


def _upsampler(config: UNetConfig, in_channels: int, width: int, stride: tuple[int, ...]) -> nn.Module:
    """Features of the coarser stage on the finer grid with the finer stage's width."""
    if config.upsampling == "transposed":
        transposed = (nn.ConvTranspose2d, nn.ConvTranspose3d)[config.spatial_dims - 2]
        return transposed(in_channels, width, kernel_size=stride, stride=stride)  # type: ignore[arg-type]
    # A 1x1 convolution and an interpolation may change places; on the coarse grid it costs a fraction.
    mode = ("bilinear", "trilinear")[config.spatial_dims - 2]
    factors = tuple(float(step) for step in stride)
    return nn.Sequential(_conv(config)(in_channels, width, kernel_size=1), nn.Upsample(scale_factor=factors, mode=mode))


def _norm(config: UNetConfig, width: int) -> list[nn.Module]:
    flat = config.spatial_dims == 2
    match config.normalisation:
        case "instance":
            return [nn.InstanceNorm2d(width, affine=True) if flat else nn.InstanceNorm3d(width, affine=True)]
        case "batch":
            return [nn.BatchNorm2d(width) if flat else nn.BatchNorm3d(width)]
        case "group":
            return [nn.GroupNorm(config.groups, width)]
        case _:
            return []


def _pool(config: UNetConfig, stride: tuple[int, ...]) -> nn.Module:
    pools: dict[str, tuple[Any, Any]] = {
        "max_pool": (nn.MaxPool2d, nn.MaxPool3d),
        "average_pool": (nn.AvgPool2d, nn.AvgPool3d),
    }
    pool: nn.Module = pools[config.downsampling][config.spatial_dims - 2](kernel_size=stride, stride=stride)
    return pool


def _conv(config: UNetConfig) -> Any:
    return (nn.Conv2d, nn.Conv3d)[config.spatial_dims - 2]


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        nn.init.kaiming_normal_(module.weight, a=LEAKY_SLOPE)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
