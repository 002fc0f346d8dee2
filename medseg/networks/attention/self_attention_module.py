"""Self-attention over grids of any size whose memory grows with the positions, not with their square."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn
from torch.nn import functional

from medseg.networks.attention.maps import AttentionMap
from medseg.networks.layers import conv, initialise_he

_HEAD_UNIT = 8  # torch's fused attention, which never holds all products at once, takes heads of such multiples
_FIRST_GAIN = 0.1
_PRODUCTS_AT_ONCE = 2**22  # of a map: 16 MiB


class SelfAttention(nn.Module):
    """Features + P softmax(q k / sqrt(w)) v, where q, k, v and P are 1x1 convolutions without bias.

    With c channels and h heads of w = c / 2h channels, rounded up to a multiple of 8, it has 4 c h w parameters. A
    bias would be lost: the softmax does not see one of the keys, and that of the values passes as it is. Wang et al.
    start with P at zero, which leaves q, k and v without a gradient; here P starts at a tenth of its usual size.

    The map `(B, 1, *S)` is the attention that a position receives, the mean over heads and queries times the number of
    keys, so that 1 is an even share; made only when recorded.
    """

    def __init__(
        self, dims: int, width: int, heads: int, extent: Literal["pooled", "windowed", "whole"], size: int
    ) -> None:
        super().__init__()
        inner = heads * _HEAD_UNIT * -(-width // (2 * heads * _HEAD_UNIT))
        self.queries, self.keys, self.values = (conv(dims)(width, inner, kernel_size=1, bias=False) for _ in range(3))
        self.projection = conv(dims)(inner, width, kernel_size=1, bias=False)
        self.heads, self.extent, self.size, self.map = heads, extent, size, AttentionMap()
        self.apply(initialise_he)
        with torch.no_grad():
            self.projection.weight.mul_(_FIRST_GAIN)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        attended = self._windowed(features) if self.extent == "windowed" else self._global(features)
        result: torch.Tensor = features + self.projection(attended)
        return result

    def _global(self, features: torch.Tensor) -> torch.Tensor:
        """Every position attends to the whole grid, or to its averages."""
        source = averaged(features, self.size) if self.extent == "pooled" else features
        queries, keys = self._by_head(self.queries(features)), self._by_head(self.keys(source))
        values = self._by_head(self.values(source))
        if self.map.is_recorded:
            self.map(_received(queries, keys, None).reshape(len(source), 1, *source.shape[2:]))
        attended = functional.scaled_dot_product_attention(queries, keys, values)
        return attended.transpose(2, 3).reshape(len(features), -1, *features.shape[2:])

    def _windowed(self, features: torch.Tensor) -> torch.Tensor:
        """Every position attends to its window."""
        grid = tuple(features.shape[2:])
        counts = tuple(-(-length // self.size) for length in grid)
        window = tuple(-(-length // count) for length, count in zip(grid, counts, strict=True))
        parts = [to_windows(part(features), counts, window) for part in (self.queries, self.keys, self.values)]
        queries, keys, values = (self._by_head(part) for part in parts)
        mask = None
        if any(count * length != size for count, length, size in zip(counts, window, grid, strict=True)):
            inside = to_windows(features.new_ones(1, 1, *grid), counts, window).flatten(2).bool()
            mask = inside.repeat(len(features), 1, 1)[:, :, None]  # (windows, 1 head, 1 query, keys)
        if self.map.is_recorded:
            received = _received(queries, keys, mask).reshape(-1, 1, *window)
            self.map(from_windows(received, counts, grid))
        attended = functional.scaled_dot_product_attention(queries, keys, values, attn_mask=mask)
        return from_windows(attended.transpose(2, 3).reshape(len(queries), -1, *window), counts, grid)

    def _by_head(self, part: torch.Tensor) -> torch.Tensor:
        """`(B, heads * w, *S)` -> `(B, heads, positions, w)`."""
        return part.flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3)


def averaged(features: torch.Tensor, size: int) -> torch.Tensor:
    """Features on a grid of at most `size` positions an axis; bins as in adaptive average pooling.

    As one matrix product an axis: on CUDA, adaptive pooling has no bit-reproducible gradient.
    """
    for axis in range(2, features.ndim):
        length = features.shape[axis]
        if length > size:
            bins, positions = torch.arange(size, device=features.device), torch.arange(length, device=features.device)
            first, end = bins * length // size, -(-(bins + 1) * length // size)
            inside = (positions[:, None] >= first) & (positions[:, None] < end)
            weights = (inside / inside.sum(dim=0)).to(features.dtype)
            features = (features.movedim(axis, -1) @ weights).movedim(-1, axis)
    return features


def to_windows(features: torch.Tensor, counts: Sequence[int], window: Sequence[int]) -> torch.Tensor:
    """`(B, C, *S)` -> `(B * windows, C, *window)`, zeros behind the grid's end where the windows reach beyond it."""
    grid, axes = features.shape[2:], range(len(counts))
    margins = [count * length - size for count, length, size in zip(counts, window, grid, strict=True)]
    padded = functional.pad(features, [side for margin in reversed(margins) for side in (0, margin)])
    split = padded.reshape(*features.shape[:2], *(one for pair in zip(counts, window, strict=True) for one in pair))
    order = [0, *(2 + 2 * axis for axis in axes), 1, *(3 + 2 * axis for axis in axes)]
    return split.permute(order).reshape(-1, features.shape[1], *window)


def from_windows(windows: torch.Tensor, counts: Sequence[int], grid: Sequence[int]) -> torch.Tensor:
    """The inverse of `to_windows`; what lay beyond the grid is dropped."""
    dims, channels, window = len(counts), windows.shape[1], windows.shape[2:]
    split = windows.reshape(-1, *counts, channels, *window)
    order = [0, 1 + dims, *(one for axis in range(dims) for one in (1 + axis, 2 + dims + axis))]
    padded = split.permute(order).reshape(
        -1, channels, *(count * length for count, length in zip(counts, window, strict=True))
    )
    for axis, length in enumerate(grid, start=2):
        padded = padded.narrow(axis, 0, length)
    return padded


def _received(queries: torch.Tensor, keys: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """`(B, heads, N, w)`, `(B, heads, M, w)` -> `(B, M)`: mean share of each key, times the number of keys.

    With a mask `(B, 1, 1, M)`, queries and keys are one window's positions, of which only the masked ones count.
    In float32, under autocast too.
    """
    total = torch.zeros(len(keys), keys.shape[2], device=keys.device)
    step = max(1, _PRODUCTS_AT_ONCE // keys.shape[2])
    with torch.autocast(queries.device.type, enabled=False):
        for start in range(0, queries.shape[2], step):
            some = queries[:, :, start : start + step].float()
            products = some @ keys.float().transpose(2, 3) / some.shape[-1] ** 0.5
            if mask is None:
                total += products.softmax(dim=-1).mean(dim=1).sum(dim=1)
                continue
            asks = mask[:, 0, 0, start : start + step, None]
            total += (products.masked_fill(~mask, float("-inf")).softmax(dim=-1).mean(dim=1) * asks).sum(dim=1)
    if mask is None:
        return total * (keys.shape[2] / queries.shape[2])
    return total  # as many queries as keys count
