"""The convolutional block attention module: which channels matter, then where."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import field_validator

from medseg.networks.attention.base import AttentionConfig
from medseg.networks.attention.spatial import require_odd
from medseg.networks.base import PositiveInt

if TYPE_CHECKING:
    from torch import nn


class CBAMConfig(AttentionConfig):
    """Channel attention over means and maxima, then spatial attention (Woo et al., ECCV 2018)."""

    name: Literal["cbam"] = "cbam"
    reduction: PositiveInt = 16  # channels over hidden units, of which there are 8 at least
    kernel_size: PositiveInt = 7  # odd

    _odd = field_validator("kernel_size")(require_odd)

    def build(self, dims: int, width: int) -> nn.Module:
        from medseg.networks.attention.channel_module import ChannelAttention
        from medseg.networks.attention.spatial_module import ConvolutionalBlockAttention, SpatialAttention

        channel = ChannelAttention(width, self.reduction, with_peaks=True)
        return ConvolutionalBlockAttention(channel, SpatialAttention(dims, self.kernel_size))
