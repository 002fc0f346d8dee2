"""UNETR's config: MONAI's network, built for one size of patch, because its position embedding is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, model_validator

from medseg.errors import ConfigError
from medseg.networks.base import NetworkConfig, PositiveInt

if TYPE_CHECKING:
    from torch import nn

TOKEN = 16  # voxels an axis; MONAI's network fixes it, and its 12 transformer blocks


class UNETRConfig(NetworkConfig):
    """UNETR (Hatamizadeh et al., WACV 2022): a vision transformer encodes, a residual convolutional decoder joins.

    Tokens of 16 voxels an axis, 12 blocks, of which the outputs of the 3rd, 6th, 9th and last reach the decoder (MONAI
    takes the 4th, 7th and 10th for the first three). Each token has its own learned position, so that the weights
    depend on the size of the patch: the experiment's patch size is taken where `image_size` is not given, and the
    network takes no other. MONAI projects by a convolution, which is the paper's linear projection, and gives queries,
    keys and values no bias.
    """

    name: Literal["unetr"] = "unetr"
    image_size: tuple[PositiveInt, ...] | None = None  # the patch that it is built for
    feature_size: PositiveInt = 16  # channels of the finest stage of the decoder
    hidden_size: PositiveInt = 768  # channels of a token
    mlp_size: PositiveInt = 3072
    heads: PositiveInt = 12
    normalisation: Literal["instance", "batch"] = "instance"
    dropout: float = Field(0.0, ge=0, lt=1)  # in the transformer
    checkpointing: bool = False  # recompute transformer blocks in the backward pass: less memory, more time

    @model_validator(mode="after")
    def _consistent(self) -> UNETRConfig:
        if self.hidden_size % self.heads:
            raise ValueError(f"heads {self.heads} must divide hidden_size {self.hidden_size}")
        if self.image_size is not None:
            try:
                super().check_size(self.image_size, "image_size")
            except ConfigError as error:
                raise ValueError(str(error)) from error
        return self

    def divisor(self) -> tuple[int, ...]:
        return (TOKEN,) * self.spatial_dims

    def sized(self, size: Sequence[int]) -> Self:
        return self if self.image_size else self.model_copy(update={"image_size": tuple(size)})

    def check_size(self, size: Sequence[int], where: str) -> None:
        super().check_size(size, where)
        if self.image_size is not None and tuple(size) != self.image_size:
            raise ConfigError(
                f"{where} {list(size)} does not fit: network 'unetr' is built for image_size {list(self.image_size)} "
                f"alone; nearest: {list(self.image_size)}"
            )

    def fitted(self, size: Sequence[int]) -> tuple[int, ...]:
        smallest = super().fitted(size)
        if self.image_size is None:
            return smallest
        if any(have > fixed for have, fixed in zip(size, self.image_size, strict=True)):
            raise ConfigError(
                f"size {list(size)} does not fit in image_size {list(self.image_size)}, which network 'unetr' is "
                "built for; change network.image_size, or leave it out"
            )
        return self.image_size

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        from monai.networks.nets.unetr import UNETR
        from torch import nn

        from medseg.networks.recomputation import recompute_in_backward
        from medseg.networks.shallow_convolution import guard_shallow_grids

        if self.image_size is None:
            raise ConfigError(
                "network 'unetr' cannot be built without a size, on which its weights depend; set network.image_size, "
                "or take the config that `sized(patch)` gives"
            )
        network = UNETR(
            in_channels=in_channels,
            out_channels=out_channels,
            img_size=self.image_size,
            feature_size=self.feature_size,
            hidden_size=self.hidden_size,
            mlp_dim=self.mlp_size,
            num_heads=self.heads,
            norm_name=self.normalisation,
            dropout_rate=self.dropout,
            spatial_dims=self.spatial_dims,
        )
        for block in network.vit.blocks:
            block.norm_cross_attn = nn.Identity()  # of a cross attention that UNETR does not have
        if self.checkpointing:
            recompute_in_backward(network.vit.blocks)
        return guard_shallow_grids(network)
