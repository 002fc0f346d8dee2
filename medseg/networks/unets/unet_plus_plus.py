"""The U-Net++'s config: MONAI's network, with its limits checked before it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, Strict, model_validator

from medseg.networks.base import NetworkConfig, PositiveInt

if TYPE_CHECKING:
    from torch import nn

HALVINGS = 4  # MONAI's network has five stages


class UNetPlusPlusConfig(NetworkConfig):
    """U-Net++ (Zhou et al., DLMIA 2018): nested, dense skips; node (i, j) joins all (i, < j) and (i + 1, j - 1).

    As MONAI builds it: five stages, max pooling, two 3-convolutions a node, each with a norm and LeakyReLU(0.1) where
    the paper has ReLU; transposed convolutions upsample, to half the width but on the finest stage, and the last node
    has a width of its own. Deep supervision puts heads on the nodes of the finest row before the last one too, so that
    all logits have the image's size; in evaluation the last one speaks alone, where the paper's accurate mode takes the
    mean of all four and its fast mode an earlier one. On CUDA, max pooling in 3D has no bit-reproducible gradient.
    """

    name: Literal["unet_plus_plus"] = "unet_plus_plus"
    channels: tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt] = (32, 64, 128, 256, 512)
    last_channels: PositiveInt = 32  # of the node under the head
    normalisation: Literal["instance", "batch"] = "instance"
    dropout: float = Field(0.0, ge=0, lt=1)
    deep_supervision: Annotated[int, Strict()] = Field(0, ge=0)  # heads before the last; Zhou et al. use all three
    checkpointing: bool = False  # recompute nodes in the backward pass: less memory, about a third more time

    @model_validator(mode="after")
    def _consistent(self) -> UNetPlusPlusConfig:
        if self.deep_supervision > HALVINGS - 1:
            raise ValueError(
                f"deep_supervision is {self.deep_supervision}, but {HALVINGS} nodes of the finest row allow 0 to "
                f"{HALVINGS - 1}"
            )
        if min(self.channels[2:]) < 2:
            raise ValueError("channels must be 2 or more from the third stage on: upsampling halves them")
        if self.checkpointing and self.normalisation == "batch":
            raise ValueError("checkpointing would update batch statistics twice a step; use another normalisation")
        return self

    def divisor(self) -> tuple[int, ...]:
        return (2**HALVINGS,) * self.spatial_dims

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        from medseg.networks.shallow_convolution import guard_shallow_grids
        from medseg.networks.unets.unet_plus_plus_module import UNetPlusPlus

        return guard_shallow_grids(UNetPlusPlus(self, in_channels, out_channels))
