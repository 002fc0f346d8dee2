"""SegFormer in 3D, which segmentation-models-pytorch does not have."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from monai.networks.layers.drop_path import DropPath
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from medseg.networks.layers import interpolated, norm

if TYPE_CHECKING:
    from medseg.networks.transformers.segformer import SegFormerConfig

PATCH_KERNELS = (7, 3)  # of the first embedding, and of each later one
PATCH_STRIDES = (4, 2)
NORM_EPS = 1e-6


class SegFormer(nn.Module):
    """Image `(B, C, X, Y, Z)` -> logits `(B, K, X, Y, Z)`; see SegFormerConfig for the paper.

    A stage of c channels after one of p (C before the first), with d blocks, reduction r and MLP ratio m, has
        embedding   k^3 p c + c + 2 c                       (k = 7 in the first stage, 3 in the others)
        each block  4 c (norms)  +  4 c^2 + 4 c (attention)  +  r^3 c^2 + 3 c where r > 1 (reduction)
                    +  2 m c^2 + m c + c + 28 m c (Mix-FFN: two linear layers around a depthwise 3 x 3 x 3 convolution)
        norm        2 c
    and the decoder, w wide over n stages, the sum over stages of c w + w, then n w^2 + 2 w, then w K + K parameters.
    Weights start as in the paper's code: linear ones truncated normal with deviation 0.02, convolutions Kaiming normal
    by their fan out, biases at zero.
    """

    def __init__(self, config: SegFormerConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        widths, wide = config.channels, config.width
        drops = iter(torch.linspace(0, config.drop_path, sum(config.depths)).tolist())
        self.stages = nn.ModuleList(
            Stage(config, index, before, [next(drops) for _ in range(config.depths[index])])
            for index, before in enumerate((in_channels, *widths[:-1]))
        )
        self.projections = nn.ModuleList(nn.Conv3d(width, wide, 1) for width in widths)
        self.fusion = nn.Sequential(
            nn.Conv3d(len(widths) * wide, wide, 1, bias=False),
            norm(config.normalisation, 3, wide, config.groups),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Sequential(nn.Dropout3d(config.dropout), nn.Conv3d(wide, out_channels, 1))
        self.apply(_initialise)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features, passed = image, []
        for stage, project in zip(self.stages, self.projections, strict=True):
            features = stage(features)
            passed.append(project(features))
        finest = passed[0].shape[2:]
        fused = self.fusion(torch.cat([interpolated(one, finest) for one in passed], dim=1))
        return interpolated(self.head(fused), image.shape[2:])


class Stage(nn.Module):
    """Overlapping patches become tokens, transformer blocks work on them, and they become a grid again."""

    def __init__(self, config: SegFormerConfig, index: int, in_channels: int, drops: Sequence[float]) -> None:
        super().__init__()
        width, later = config.channels[index], int(index > 0)
        kernel = PATCH_KERNELS[later]
        self.embed = nn.Conv3d(in_channels, width, kernel, PATCH_STRIDES[later], padding=kernel // 2)
        self.embed_norm = nn.LayerNorm(width, NORM_EPS)
        self.blocks = nn.ModuleList(
            Block(width, config.heads[index], config.reductions[index], config.mlp_ratio, drop) for drop in drops
        )
        self.norm = nn.LayerNorm(width, NORM_EPS)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features = self.embed(features)
        grid = features.shape[2:]
        tokens = self.embed_norm(_tokens(features))
        for block in self.blocks:
            tokens = block(tokens, grid)
        return _features(self.norm(tokens), grid)


class Block(nn.Module):
    """Tokens `(B, N, C)` -> tokens: attention, then Mix-FFN, each normalised before and added after."""

    def __init__(self, width: int, heads: int, reduction: int, mlp_ratio: int, drop: float) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, NORM_EPS)
        self.attention = Attention(width, heads, reduction)
        self.mlp_norm = nn.LayerNorm(width, NORM_EPS)
        self.mlp = MixFFN(width, mlp_ratio * width)
        self.drop = DropPath(drop)

    def forward(self, tokens: torch.Tensor, grid: torch.Size) -> torch.Tensor:
        tokens = tokens + self.drop(self.attention(self.attention_norm(tokens), grid))
        result: torch.Tensor = tokens + self.drop(self.mlp(self.mlp_norm(tokens), grid))
        return result


class Attention(nn.Module):
    """Every token asks tokens that stand for r x r x r each."""

    def __init__(self, width: int, heads: int, reduction: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.reduce = nn.Conv3d(width, width, reduction, stride=reduction) if reduction > 1 else None
        self.reduce_norm = nn.LayerNorm(width, NORM_EPS) if reduction > 1 else None

    def forward(self, tokens: torch.Tensor, grid: torch.Size) -> torch.Tensor:
        asked = tokens
        if self.reduce is not None and self.reduce_norm is not None:
            asked = self.reduce_norm(_tokens(self.reduce(_features(tokens, grid))))
        key, value = self.key_value(asked).chunk(2, dim=-1)
        query = self._split(self.query(tokens))
        mixed = scaled_dot_product_attention(query, self._split(key), self._split(value))
        result: torch.Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return result

    def _split(self, tokens: torch.Tensor) -> torch.Tensor:
        """`(B, N, C)` -> `(B, heads, N, C / heads)`."""
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class MixFFN(nn.Module):
    """A feed-forward network with a depthwise convolution inside, whose padding tells tokens where they are."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.mix = nn.Conv3d(hidden, hidden, 3, padding=1, groups=hidden)
        self.activation = nn.GELU()

    def forward(self, tokens: torch.Tensor, grid: torch.Size) -> torch.Tensor:
        mixed = _tokens(self.mix(_features(self.widen(tokens), grid)))
        result: torch.Tensor = self.narrow(self.activation(mixed))
        return result


def _tokens(features: torch.Tensor) -> torch.Tensor:
    """`(B, C, X, Y, Z)` -> `(B, N, C)`."""
    return features.flatten(2).transpose(1, 2)


def _features(tokens: torch.Tensor, grid: torch.Size) -> torch.Tensor:
    """`(B, N, C)` -> `(B, C, X, Y, Z)`."""
    return tokens.transpose(1, 2).unflatten(2, grid)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv3d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
