"""Squeeze-and-excitation: one weight a channel, from what the channel holds on average."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from medseg.networks.attention.base import AttentionConfig
from medseg.networks.base import PositiveInt

if TYPE_CHECKING:
    from torch import nn


class SqueezeExcitationConfig(AttentionConfig):
    """Squeeze-and-excitation (Hu et al., CVPR 2018; after whole stages as in Roy et al., MICCAI 2018)."""

    name: Literal["squeeze_excitation"] = "squeeze_excitation"
    reduction: PositiveInt = 16  # channels over hidden units, of which there are 8 at least

    def build(self, dims: int, width: int) -> nn.Module:
        from medseg.networks.attention.channel_module import ChannelAttention

        return ChannelAttention(width, self.reduction, with_peaks=False)
