"""The V-Net's config: MONAI's blocks, in any width and depth and for any number of channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from medseg.networks.base import NetworkConfig, PositiveInt

if TYPE_CHECKING:
    from torch import nn


class VNetConfig(NetworkConfig):
    """V-Net (Milletari et al., 3DV 2016): residual stages of 5-convolutions, strided down and transposed up.

    As MONAI builds it: batch norm (the paper has none), ELU where the paper has PReLU (`activation: prelu`), fewer
    convolutions in the coarse stages (the paper's are `convs_down: [2, 3, 3, 3]`, `convs_up: [3, 3, 2, 1]`) and a
    5-convolution more under the head; dropout, of which the paper has none and MONAI 0.5, is in the two coarsest stages
    down, in the two coarsest up and on every skip. MONAI fixes the width at 16, the depth at five stages and some of
    the dropout at 0.5; here they are free. The first sum repeats the image's channels in turn to fill the width, as in
    MONAI where they divide it. With batches of one or two, batch statistics are poor: rather take 'unet' with instance
    norm there.
    """

    name: Literal["vnet"] = "vnet"
    width: PositiveInt = 16  # channels of the finest stage; each coarser one has twice as many
    convs_down: tuple[PositiveInt, ...] = Field((1, 2, 3, 2), min_length=1)  # a stage below the finest, which has one
    convs_up: tuple[PositiveInt, ...] = Field((2, 2, 1, 1), min_length=1)  # a stage of the decoder, coarsest first
    activation: Literal["elu", "prelu", "relu"] = "elu"
    dropout: float = Field(0.0, ge=0, lt=1)  # of whole channels

    @model_validator(mode="after")
    def _consistent(self) -> VNetConfig:
        if len(self.convs_up) != len(self.convs_down):
            raise ValueError(
                f"convs_up has {len(self.convs_up)} entries, but convs_down has {len(self.convs_down)}; give as many"
            )
        return self

    def divisor(self) -> tuple[int, ...]:
        return (2 ** len(self.convs_down),) * self.spatial_dims

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        from medseg.networks.shallow_convolution import guard_shallow_grids
        from medseg.networks.unets.vnet_module import VNet

        return guard_shallow_grids(VNet(self, in_channels, out_channels))
