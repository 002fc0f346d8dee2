"""Swin-Unet's config: a U of Swin transformer blocks without a single convolution between its first and last layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from medseg.networks.base import NetworkConfig, PositiveInt

if TYPE_CHECKING:
    from torch import nn


class SwinUNetConfig(NetworkConfig):
    """Swin-Unet (Cao et al., ECCV Workshops 2022), in 2D: Swin blocks, patch merging down, patch expanding up, skips.

    The defaults are the paper's, but for stochastic depth, which its code sets to 0.2. Sizes are multiples of
    patch x 2^(stages - 1), as for MONAI's Swin blocks, which do the work: grids that the window does not divide are
    padded with zeros, which take part in the attention where windows are not shifted; where a grid is smaller than the
    window, the window shrinks to it, and the bias is then learned for pairs of tokens, not for offsets.
    """

    name: Literal["swin_unet"] = "swin_unet"
    spatial_dims: Literal[2] = 2
    width: PositiveInt = 96  # channels of a token at the finest stage; each coarser one has twice as many
    patch: PositiveInt = 4  # pixels of a token, an axis
    depths: tuple[PositiveInt, ...] = Field((2, 2, 2, 2), min_length=2)  # blocks a stage, the last is the bottleneck
    heads: tuple[PositiveInt, ...] = Field((3, 6, 12, 24), min_length=2)  # attention heads a stage
    window: int = Field(7, ge=2)  # in tokens, an axis
    dropout: float = Field(0.0, ge=0, lt=1)
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    drop_path: float = Field(0.0, ge=0, lt=1)  # stochastic depth (Huang et al., ECCV 2016), growing with the depth
    checkpointing: bool = False  # recompute blocks in the backward pass: less memory, about a third more time

    @model_validator(mode="after")
    def _consistent(self) -> SwinUNetConfig:
        if len(self.heads) != len(self.depths):
            raise ValueError(
                f"heads has {len(self.heads)} entries, but {len(self.depths)} depths need {len(self.depths)}"
            )
        widths = self.widths()
        for width, heads in zip(widths, self.heads, strict=True):
            if width % heads:
                raise ValueError(f"heads {list(self.heads)} must divide the stages' widths {widths}; {heads} does not")
        return self

    def widths(self) -> list[int]:
        """Channels of a token at each stage, finest first."""
        return [self.width * 2**stage for stage in range(len(self.depths))]

    def divisor(self) -> tuple[int, ...]:
        return (self.patch * 2 ** (len(self.depths) - 1),) * self.spatial_dims

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        from medseg.networks.transformers.swin_unet_module import SwinUNet

        return SwinUNet(self, in_channels, out_channels)
