"""Swin UNETR's config: MONAI's network, with its limits checked before it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from medseg.networks.base import NetworkConfig, PerAxis, PositiveInt, per_axis

if TYPE_CHECKING:
    from torch import nn

HALVINGS = 5  # one by the patch embedding, four by merging


class SwinUNETRConfig(NetworkConfig):
    """Swin UNETR (Hatamizadeh et al., BrainLes 2021): a Swin transformer encodes, a residual U-Net decoder joins.

    v2 puts a residual convolution before each stage (He et al., MICCAI 2023). Sizes are multiples of 32, and small ones
    like 32 x 64 x 32 work: where a stage is smaller than the window, the window shrinks to it. 32 on every axis leaves
    a single voxel, which its instance norm refuses. Plain bf16 gains it nothing on CPU. torch.compile splits it in
    several graphs, for MONAI checks the size with NumPy.
    """

    compiles: ClassVar[bool] = False

    name: Literal["swin_unetr"] = "swin_unetr"
    feature_size: PositiveInt = Field(24, multiple_of=12)
    depths: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (2, 2, 2, 2)  # transformer blocks a stage
    heads: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (3, 6, 12, 24)  # attention heads a stage
    window: PerAxis = 7  # in tokens, 2 or more an axis
    v2: bool = False
    dropout: float = Field(0.0, ge=0, lt=1)
    attention_dropout: float = Field(0.0, ge=0, lt=1)
    drop_path: float = Field(0.0, ge=0, lt=1)  # stochastic depth (Huang et al., ECCV 2016), growing with the depth
    checkpointing: bool = False  # recompute blocks in the backward pass: less memory, about a third more time

    @model_validator(mode="after")
    def _consistent(self) -> SwinUNETRConfig:
        widths = [self.feature_size * 2**stage for stage in range(4)]
        for width, heads in zip(widths, self.heads, strict=True):
            if width % heads:
                raise ValueError(f"heads {list(self.heads)} must divide the stages' widths {widths}; {heads} does not")
        window = per_axis(self.window, self.spatial_dims)
        if len(window) != self.spatial_dims:
            raise ValueError(f"window: give one number, or {self.spatial_dims}")
        if min(window) < 2:
            raise ValueError(
                f"window {list(window)} must be 2 or more an axis: a token attends to nothing but its window"
            )
        return self

    def divisor(self) -> tuple[int, ...]:
        return (2**HALVINGS,) * self.spatial_dims

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        from monai.networks.nets.swin_unetr import SwinUNETR

        from medseg.networks.shallow_convolution import guard_shallow_grids

        network = SwinUNETR(
            in_channels=in_channels,
            out_channels=out_channels,
            depths=self.depths,
            num_heads=self.heads,
            window_size=per_axis(self.window, self.spatial_dims),
            feature_size=self.feature_size,
            drop_rate=self.dropout,
            attn_drop_rate=self.attention_dropout,
            dropout_path_rate=self.drop_path,
            use_checkpoint=self.checkpointing,
            spatial_dims=self.spatial_dims,
            use_v2=self.v2,
        )
        return guard_shallow_grids(network)
