"""Self-attention: every position takes from all others what resembles it, within what memory allows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from medseg.networks.attention.base import AttentionConfig
from medseg.networks.base import PositiveInt

if TYPE_CHECKING:
    from torch import nn


class SelfAttentionConfig(AttentionConfig):
    """The non-local block (Wang et al., CVPR 2018) with the scaled product of Vaswani et al., NeurIPS 2017.

    `extent` bounds its time and memory. With N positions and d axes
        pooled    queries at every position, keys and values averaged to at most `size` positions an axis: N x size^d
                  products; the pyramid vision transformer does so (Wang et al., CVM 2022)
        windowed  within windows of at most `size` an axis, which do not shift: N x size^d products
        whole     between all positions, N^2 products: for coarse grids only
    Any grid is taken: a shorter one is one window, or not pooled at all. Positions are not encoded: the features of a
    convolutional network know their place. On CUDA in float32 its gradient is not bit-reproducible, as torch's
    memory-saving kernel adds up in any order.
    """

    name: Literal["self_attention"] = "self_attention"
    heads: PositiveInt = 1
    extent: Literal["pooled", "windowed", "whole"] = "pooled"
    size: Annotated[int, Field(ge=2)] = 8  # positions an axis; only where extent is pooled or windowed

    def build(self, dims: int, width: int) -> nn.Module:
        from medseg.networks.attention.self_attention_module import SelfAttention

        return SelfAttention(dims, width, self.heads, self.extent, self.size)
