"""The U-Net itself, in one screen or two, because no single class of MONAI covers the choices of its config."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from medseg.networks.attention.places import after_stages, on_skips
from medseg.networks.layers import (
    activation,
    average_pool,
    channel_dropout,
    conv,
    initialise_he,
    linear_mode,
    max_pool,
    norm,
    transposed_conv,
)

if TYPE_CHECKING:
    from medseg.networks.unets.unet import UNetConfig


class UNet(nn.Module):
    """Image `(B, C, *S)` -> logits `(B, K, *S)`; see UNetConfig for the papers.

    With channels c0..cn, strides s1..sn, kernels of k voxels and d convolutions a stage, the plain network with
    instance norm, transposed convolutions and concatenation has
        encoder   sum over i of k c(i-1) ci + (d - 1) k ci^2 + 2 d ci        (c(-1) = C; 2 ci: scale and shift)
        decoder   sum over i < n of  prod(s(i+1)) c(i+1) ci + ci  +  2 k ci^2 + (d - 1) k ci^2 + 2 d ci
        head      c0 K + K
    parameters. Weights start Kaiming normal (He et al., ICCV 2015; a = 0.01, fan in), biases at zero. Attention is
    drawn last, so that for one seed a network with it starts from the very weights of the network without.
    """

    def __init__(self, config: UNetConfig, encoder: nn.ModuleList, out_channels: int) -> None:
        """`encoder`: one module a stage, finest first, whose widths and strides are those of the config."""
        super().__init__()
        widths, strides, kernels = config.channels, config.stage_strides(), config.stage_kernels()
        coarser = range(len(widths) - 1)
        self.encoder = encoder
        self.upsamplers = nn.ModuleList(_upsampler(config, widths[i + 1], widths[i], strides[i + 1]) for i in coarser)
        joined = 2 if config.skips == "concatenate" else 1
        self.decoder = nn.ModuleList(
            Stage(config, joined * widths[i], widths[i], kernels[i], (1,) * config.spatial_dims) for i in coarser
        )
        self.heads = nn.ModuleList(
            conv(config.spatial_dims)(widths[i], out_channels, kernel_size=1)
            for i in range(1 + config.deep_supervision)
        )
        self.skips, self.checkpointing = config.skips, config.checkpointing
        self.apply(initialise_he)

        dims, attention = config.spatial_dims, config.attention
        self.encoder_attention = after_stages(attention, "encoder", dims, widths)
        self.decoder_attention = after_stages(attention, "decoder", dims, widths[:-1])
        self.skip_attention = on_skips(attention, dims, widths[:-1])

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        features, passed = image, []
        for stage, attention in zip(self.encoder, self.encoder_attention, strict=True):
            features = self._run(stage, attention, features)
            passed.append(features)
        passed.pop()

        logits: list[torch.Tensor] = []  # coarsest first
        heads = len(self.heads) if self.training else 1
        for i in reversed(range(len(self.decoder))):
            coarser = self.upsamplers[i](features)
            joined = self._join(coarser, self.skip_attention[i](passed.pop(), coarser))
            features = self._run(self.decoder[i], self.decoder_attention[i], joined)
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

    def _run(self, stage: nn.Module, attention: nn.Module, features: torch.Tensor) -> torch.Tensor:
        def whole(entering: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = attention(stage(entering))
            return result

        if self.checkpointing and self.training:
            recomputed: torch.Tensor = checkpoint(whole, features, use_reentrant=False)
            return recomputed
        return whole(features)


def plain_encoder(config: UNetConfig, in_channels: int) -> nn.ModuleList:
    """The encoder of UNetConfig: one Stage after the other."""
    widths, kernels, strides = config.channels, config.stage_kernels(), config.stage_strides()
    return nn.ModuleList(
        Stage(config, before, width, kernel, stride)
        for before, width, kernel, stride in zip((in_channels, *widths), widths, kernels, strides, strict=False)
    )


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
        parts = conv_norm(config, in_channels, width, kernel, stride)
        for _ in range(config.convs - 1):
            parts += [activation(config.activation), *conv_norm(config, width, width, kernel, one)]
        self.body = nn.Sequential(*parts)
        self.shortcut = _shortcut(config, in_channels, width, stride) if config.residual else None
        self.activation = activation(config.activation)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = self.pool(features)
        result = self.body(features)
        if self.shortcut is not None:
            result = result + self.shortcut(features)
        activated: torch.Tensor = self.activation(result)
        return activated


def conv_norm(
    config: UNetConfig, in_channels: int, width: int, kernel: tuple[int, ...], stride: tuple[int, ...]
) -> list[nn.Module]:
    """Convolution that keeps the grid but for its stride, normalisation, dropout."""
    dims, padding = config.spatial_dims, tuple(size // 2 for size in kernel)
    subtracted = config.normalisation in ("instance", "batch")  # a bias would be taken off again with the mean
    parts: list[nn.Module] = [conv(dims)(in_channels, width, kernel, stride, padding, bias=not subtracted)]
    if config.normalisation != "none":
        parts.append(norm(config.normalisation, dims, width, config.groups))
    if config.dropout > 0:
        parts.append(channel_dropout(dims, config.dropout))
    return parts


def _shortcut(config: UNetConfig, in_channels: int, width: int, stride: tuple[int, ...]) -> nn.Module:
    """What a residual stage adds: its input, brought to the stage's width and grid where they differ."""
    if in_channels == width and set(stride) == {1}:
        return nn.Identity()
    return nn.Sequential(*conv_norm(config, in_channels, width, (1,) * config.spatial_dims, stride))


def _upsampler(config: UNetConfig, in_channels: int, width: int, stride: tuple[int, ...]) -> nn.Module:
    """Features of the coarser stage on the finer grid with the finer stage's width."""
    dims = config.spatial_dims
    if config.upsampling == "transposed":
        transposed: nn.Module = transposed_conv(dims)(in_channels, width, kernel_size=stride, stride=stride)
        return transposed
    # A 1x1 convolution and an interpolation may change places; on the coarse grid it costs a fraction.
    factors = tuple(float(step) for step in stride)
    return nn.Sequential(
        conv(dims)(in_channels, width, kernel_size=1), nn.Upsample(scale_factor=factors, mode=linear_mode(dims))
    )


def _pool(config: UNetConfig, stride: tuple[int, ...]) -> nn.Module:
    pool: nn.Module = (max_pool if config.downsampling == "max_pool" else average_pool)(config.spatial_dims)(stride)
    return pool
