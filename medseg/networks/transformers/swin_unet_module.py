"""Swin-Unet itself: MONAI's Swin stages and patch merging, with the patch expanding that MONAI does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from monai.networks.nets.swin_unetr import BasicLayer, PatchMergingV2
from torch import nn

if TYPE_CHECKING:
    from medseg.networks.transformers.swin_unet import SwinUNetConfig

SPREAD = 0.02  # standard deviation of a transformer's first weights; Liu et al., ICCV 2021


class SwinUNet(nn.Module):
    """Image `(B, C, X, Y)` -> logits `(B, K, X, Y)`; see SwinUNetConfig for the paper.

    With tokens of p pixels an axis and c channels, windows of w tokens an axis, n stages of widths d(i) = 2^i c, blocks
    b(i) and heads h(i), it has
        embedding  C p^2 c + 3 c                                    (2 c: norm)
        blocks     sum over i of  e(i) (12 d^2 + 13 d + (2 w - 1)^2 h)        e(i) = 2 b(i), at the bottleneck b(i)
                   two norms 4 d, qkv 3 d^2 + 3 d, its output d^2 + d, MLP 8 d^2 + 5 d, the table of biases
        merging    sum over i < n - 1 of  8 d^2 + 8 d               (4 d -> 2 d; 8 d: norm)
        expanding  sum over i < n - 1 of  8 d^2 + 2 d               (2 d -> 4 d, then 4 tokens of d; 2 d: norm)
        joining    sum over i < n - 1 of  2 d^2 + d                 (2 d -> d)
        norms      2 d(n - 1) + 2 c                                 (of the bottleneck and of the last stage)
        last       p^2 c^2 + 2 c + c K                              (c -> p^2 c, norm, head without bias)
    parameters: 27.17 M for the paper's C = 3, K = 9. A stage's even blocks see their window of w tokens, its odd ones
    windows moved by half of it.
    """

    def __init__(self, config: SwinUNetConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        widths, width, patch = config.widths(), config.width, config.patch
        finer = range(len(widths) - 1)
        rates = _drop_path_rates(config)
        self.embedding = nn.Conv2d(in_channels, width, kernel_size=patch, stride=patch)
        self.embedding_norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = nn.ModuleList(_stage(config, i, rates[i]) for i in range(len(widths)))
        self.mergers = nn.ModuleList(PatchMergingV2(widths[i], spatial_dims=2) for i in finer)
        self.bottleneck_norm = nn.LayerNorm(widths[-1])
        self.expanders = nn.ModuleList(PatchExpanding(widths[i + 1], 2, widths[i]) for i in finer)
        self.joins = nn.ModuleList(nn.Linear(2 * widths[i], widths[i]) for i in finer)
        self.decoder = nn.ModuleList(_stage(config, i, rates[i]) for i in finer)
        self.last_norm = nn.LayerNorm(width)
        self.last_expander = PatchExpanding(width, patch, width)
        self.head = nn.Conv2d(width, out_channels, kernel_size=1, bias=False)
        self.apply(_initialise)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.dropout(self.embedding_norm(_channels_last(self.embedding(image))))  # (B, X / p, Y / p, c)
        skips = []
        for stage, merge in zip(self.encoder, [*self.mergers, None], strict=True):
            tokens = _run(stage, tokens)
            if merge is not None:
                skips.append(tokens)
                tokens = merge(tokens)
        tokens = self.bottleneck_norm(tokens)
        for i in reversed(range(len(self.decoder))):
            tokens = self.joins[i](torch.cat((self.expanders[i](tokens), skips.pop()), dim=-1))
            tokens = _run(self.decoder[i], tokens)
        logits: torch.Tensor = self.head(_channels_first(self.last_expander(self.last_norm(tokens))))
        return logits


class PatchExpanding(nn.Module):
    """Each token `(B, X, Y, in_width)` turned into factor x factor tokens: `(B, factor X, factor Y, width)`."""

    def __init__(self, in_width: int, factor: int, width: int) -> None:
        super().__init__()
        self.factor = factor
        self.expansion = nn.Linear(in_width, factor**2 * width, bias=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        batch, rows, columns, _ = tokens.shape
        expanded = self.expansion(tokens).view(batch, rows, columns, self.factor, self.factor, -1)
        finer = expanded.transpose(2, 3).reshape(batch, rows * self.factor, columns * self.factor, -1)
        normed: torch.Tensor = self.norm(finer)
        return normed


def _stage(config: SwinUNetConfig, stage: int, drop_path: list[float]) -> BasicLayer:
    return BasicLayer(
        dim=config.widths()[stage],
        depth=config.depths[stage],
        num_heads=config.heads[stage],
        window_size=(config.window, config.window),
        drop_path=drop_path,
        qkv_bias=True,
        drop=config.dropout,
        attn_drop=config.attention_dropout,
        use_checkpoint=config.checkpointing,
    )


def _drop_path_rates(config: SwinUNetConfig) -> list[list[float]]:
    """Each block's chance to be left out, from 0 at the first to `drop_path` at the bottleneck's last."""
    last = sum(config.depths) - 1
    blocks = iter(range(last + 1))
    return [[config.drop_path * next(blocks) / last for _ in range(depth)] for depth in config.depths]


def _run(stage: nn.Module, tokens: torch.Tensor) -> torch.Tensor:
    """MONAI's stage, which takes and gives channels first."""
    return _channels_last(stage(_channels_first(tokens)))


def _channels_first(tokens: torch.Tensor) -> torch.Tensor:
    return tokens.permute(0, 3, 1, 2)


def _channels_last(features: torch.Tensor) -> torch.Tensor:
    return features.permute(0, 2, 3, 1)


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=SPREAD)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
