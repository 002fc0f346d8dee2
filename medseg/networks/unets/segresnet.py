"""The SegResNet's config: MONAI's networks, plain or deeply supervised, their limits checked beforehand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, Strict, model_validator

from medseg.networks.base import NetworkConfig, PositiveInt

if TYPE_CHECKING:
    from torch import nn


class SegResNetConfig(NetworkConfig):
    """SegResNet (Myronenko, BrainLes 2018): a deep residual encoder with group norm, a light decoder whose skips add.

    MONAI's network leaves out the paper's variational branch, which rebuilds the image during training; dropout is the
    paper's, of whole channels after the first convolution (there 0.2), and the width is free (there 32). With deep
    supervision MONAI's SegResNetDS takes its place: the same stages and the same sums, but heads without normalisation
    and ReLU before them, no dropout, and learned upsampling by kernels of 3 in place of 1 and 2. On CUDA, interpolation
    in 3D has no bit-reproducible gradient; 'transposed' has.
    """

    name: Literal["segresnet"] = "segresnet"
    width: PositiveInt = 32  # channels of the finest stage; each coarser one has twice as many
    blocks_down: tuple[PositiveInt, ...] = Field((1, 2, 2, 4), min_length=2)  # residual blocks a stage, finest first
    blocks_up: tuple[PositiveInt, ...] | None = None  # of the decoder, coarsest first; default one a stage
    upsampling: Literal["interpolated", "transposed"] = "interpolated"
    normalisation: Literal["group", "instance", "batch"] = "group"
    groups: PositiveInt = 8  # only with normalisation: group
    dropout: float = Field(0.0, ge=0, lt=1)  # only without deep_supervision
    deep_supervision: Annotated[int, Strict()] = Field(0, ge=0)  # heads below the finest
    checkpointing: bool = False  # recompute blocks in the backward pass: less memory, about a third more time

    @model_validator(mode="after")
    def _consistent(self) -> SegResNetConfig:
        stages = len(self.blocks_down)
        if self.blocks_up is not None and len(self.blocks_up) != stages - 1:
            raise ValueError(f"blocks_up has {len(self.blocks_up)} entries, but {stages} stages need {stages - 1}")
        if self.deep_supervision > stages - 2:
            raise ValueError(
                f"deep_supervision is {self.deep_supervision}, but {stages} stages allow 0 to {stages - 2}"
            )
        if self.deep_supervision and self.dropout:
            raise ValueError("dropout does not exist with deep_supervision; set one of them to 0")
        if self.normalisation == "group" and self.width % self.groups:
            raise ValueError(f"width {self.width} cannot be split in {self.groups} groups; change width or groups")
        if self.checkpointing and self.normalisation == "batch":
            raise ValueError("checkpointing would update batch statistics twice a step; use another normalisation")
        return self

    def divisor(self) -> tuple[int, ...]:
        return (2 ** (len(self.blocks_down) - 1),) * self.spatial_dims

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        from monai.networks.blocks.segresnet_block import ResBlock
        from monai.networks.nets.segresnet import SegResNet
        from monai.networks.nets.segresnet_ds import SegResBlock, SegResNetDS

        from medseg.networks.recomputation import recompute_in_backward
        from medseg.networks.shallow_convolution import guard_shallow_grids

        shared: dict[str, Any] = {
            "spatial_dims": self.spatial_dims,
            "init_filters": self.width,
            "in_channels": in_channels,
            "out_channels": out_channels,
            "norm": self._norm(),
            "blocks_down": self.blocks_down,
            "blocks_up": self.blocks_up or (1,) * (len(self.blocks_down) - 1),
            "upsample_mode": "deconv" if self.upsampling == "transposed" else "nontrainable",
        }
        network: nn.Module
        if self.deep_supervision:
            network = SegResNetDS(**shared, dsdepth=1 + self.deep_supervision)
        else:
            network = SegResNet(**shared, dropout_prob=self.dropout)
        if self.checkpointing:
            recompute_in_backward(one for one in network.modules() if isinstance(one, ResBlock | SegResBlock))
        return guard_shallow_grids(network)

    def _norm(self) -> tuple[str, dict[str, Any]]:
        """The normalisation in MONAI's words."""
        settings: dict[str, dict[str, Any]] = {"group": {"num_groups": self.groups}, "batch": {}}
        return self.normalisation, settings.get(self.normalisation, {"affine": True})
