"""SETR itself: MONAI's transformer blocks over tokens of the image, and a decoder that doubles their grid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from monai.networks.blocks.transformerblock import TransformerBlock
from torch import nn

from medseg.networks.layers import activation, conv, interpolated, norm
from medseg.networks.recomputation import recompute_in_backward

if TYPE_CHECKING:
    from medseg.networks.transformers.setr import SETRConfig

WAVELENGTH = 10_000  # in tokens, times 2 pi: the longest of the position's sines; Vaswani et al., NeurIPS 2017
SPREAD = 0.02  # standard deviation of a transformer's first weights; Dosovitskiy et al., ICLR 2021


class SETR(nn.Module):
    """Image `(B, C, *S)` -> logits `(B, K, *S)`; see SETRConfig for the papers.

    With D axes, tokens of v = prod p voxels and h channels, L layers with m channels inside, a decoder of width w whose
    s = log2 max p stages have kernels of k = 3^D, it has
        embedding  C v h + h
        layers     L (4 h^2 + 2 h m + 9 h + m)      two norms 4 h, qkv 3 h^2 + 3 h, output h^2 + h, MLP 2 h m + m + h
        norm       2 h
        decoder    k h w + (s - 1) k w^2 + 2 s w    (2 w: scale and shift)
        head       w K + K
    parameters. Every token attends to every other in the first layer: each one's receptive field is the whole image.
    """

    def __init__(self, config: SETRConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        dims, hidden, width = config.spatial_dims, config.hidden_size, config.decoder_width
        patch = config.divisor()
        self.embedding = conv(dims)(in_channels, hidden, kernel_size=patch, stride=patch)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(
            TransformerBlock(hidden, config.mlp_size, config.heads, config.dropout, qkv_bias=True)
            for _ in range(config.layers)
        )
        self.norm = nn.LayerNorm(hidden)
        self.apply(_initialise_transformer)
        self.doublings = config.doublings()
        self.decoder = nn.ModuleList(
            nn.Sequential(
                conv(dims)(width if stage else hidden, width, kernel_size=3, padding=1, bias=False),
                norm(config.normalisation, dims, width, config.groups),
                activation("relu"),
            )
            for stage in range(len(self.doublings))
        )
        self.head = conv(dims)(width, out_channels, kernel_size=1)
        for layer in self.layers:
            layer.norm_cross_attn = nn.Identity()  # of a cross attention that SETR does not have
        if config.checkpointing:
            recompute_in_backward(self.layers)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.encode(image)
        for stage, factors in zip(self.decoder, self.doublings, strict=True):
            grid = [size * factor for size, factor in zip(features.shape[2:], factors, strict=True)]
            features = interpolated(stage(features), grid)
        logits: torch.Tensor = self.head(features)
        return logits

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """Tokens `(B, h, *S / p)` of an image `(B, C, *S)`."""
        embedded = self.embedding(image)
        grid = embedded.shape[2:]
        tokens = embedded.flatten(2).transpose(1, 2)  # (B, tokens, h)
        tokens = self.dropout(tokens + positions(grid, tokens.shape[2], tokens.device).to(tokens.dtype))
        for layer in self.layers:
            tokens = layer(tokens)
        encoded: torch.Tensor = self.norm(tokens)
        return encoded.transpose(1, 2).unflatten(2, grid)


def positions(grid: Sequence[int], width: int, device: torch.device) -> torch.Tensor:
    """Sines, then cosines, of each token's index along each axis, `(tokens, width)`; width / (2 axes) frequencies."""
    waves = width // (2 * len(grid))
    frequencies = WAVELENGTH ** -(torch.arange(waves, device=device, dtype=torch.float32) / waves)
    indices = torch.meshgrid(*(torch.arange(size, device=device, dtype=torch.float32) for size in grid), indexing="ij")
    angles = [index.flatten()[:, None] * frequencies for index in indices]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], dim=1)


def _initialise_transformer(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=SPREAD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
