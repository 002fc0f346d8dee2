"""MedNeXt's config: MONAI's network, with its limits checked before it is built."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, Strict, model_validator

from medseg.networks.base import NetworkConfig, PositiveInt

if TYPE_CHECKING:
    from torch import nn


class MedNeXtConfig(NetworkConfig):
    """MedNeXt (Roy et al., MICCAI 2023): a U-Net of ConvNeXt blocks, residual also where it changes the resolution.

    A block is a depthwise convolution of k voxels, a norm of each channel by itself, a 1-convolution to `expansion`
    times the width, GELU, and a 1-convolution back. The paper's sizes, all of width 32:

        size  blocks                       expansions
        S     [2, 2, 2, 2, 2, 2, 2, 2, 2]  [2, 2, 2, 2, 2, ...]    the defaults
        B     [2, 2, 2, 2, 2, 2, 2, 2, 2]  [2, 3, 4, 4, 4, ...]
        M     [3, 4, 4, 4, 4, 4, 4, 4, 3]  [2, 3, 4, 4, 4, ...]
        L     [3, 4, 8, 8, 8, 8, 8, 4, 3]  [3, 4, 8, 8, 8, ...]

    of which the keys take the first half, bottleneck included, since the decoder mirrors the encoder. MONAI's blocks
    are the paper's; what it lacks is UpKern, which starts a network of 5-kernels from a trained one of 3-kernels. It
    offers the response norm of ConvNeXt V2 (Woo et al., CVPR 2023), but not in its downsampling blocks.
    """

    name: Literal["mednext"] = "mednext"
    width: PositiveInt = 32  # channels of the finest stage; each coarser one has twice as many
    blocks: tuple[PositiveInt, ...] = Field((2, 2, 2, 2, 2), min_length=2)  # a stage, finest first, bottleneck last
    expansions: tuple[PositiveInt, ...] = Field((2, 2, 2, 2, 2), min_length=2)  # of the width inside a block, likewise
    kernel_size: Literal[3, 5, 7] = 3
    response_norm: bool = False
    deep_supervision: Annotated[int, Strict()] = Field(0, ge=0)  # heads below the finest; Roy et al. use them all
    checkpointing: bool = False  # recompute blocks in the backward pass: less memory, about a third more time

    @model_validator(mode="after")
    def _consistent(self) -> MedNeXtConfig:
        stages = len(self.blocks)
        if len(self.expansions) != stages:
            raise ValueError(f"expansions has {len(self.expansions)} entries, but {stages} stages need {stages}")
        if self.deep_supervision > stages - 1:
            raise ValueError(
                f"deep_supervision is {self.deep_supervision}, but {stages} stages allow 0 to {stages - 1}"
            )
        return self

    def divisor(self) -> tuple[int, ...]:
        return (2 ** (len(self.blocks) - 1),) * self.spatial_dims

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        from medseg.networks.shallow_convolution import guard_shallow_grids
        from medseg.networks.unets.mednext_module import MedNeXt

        return guard_shallow_grids(MedNeXt(self, in_channels, out_channels))
