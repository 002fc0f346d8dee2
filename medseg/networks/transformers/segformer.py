"""SegFormer's config: segmentation-models-pytorch's network in 2D, one built here in 3D."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from medseg.networks.base import PositiveInt
from medseg.networks.encoders.encoder import BorrowedIn2DConfig

if TYPE_CHECKING:
    from torch import nn

STEPS_2D = 32  # voxels between two tokens of the coarsest stage
PATCH_STRIDE = 4  # of the first embedding; each later one halves


class SegFormerConfig(BorrowedIn2DConfig):
    """SegFormer (Xie et al., NeurIPS 2021): a hierarchical transformer encodes, linear layers alone decode.

    In 2D it is segmentation-models-pytorch's, with the Mix Transformers `mit_b0` to `mit_b5` or any other encoder. In
    3D `channels`, `depths`, `heads` and `reductions` give a stage each; the defaults are those of MiT-B0. `reductions`
    merge r x r x r tokens before they serve as keys and values, so that attention over n tokens costs n^2 / r^3. Sizes
    are multiples of what each stage's tokens and reduction need: 32 with the defaults. Every voxel of the patch sees
    every other, by attention.
    """

    only: ClassVar[Mapping[int, tuple[str, ...]]] = {
        **BorrowedIn2DConfig.only,
        3: ("channels", "depths", "heads", "reductions", "mlp_ratio", "drop_path", "normalisation", "groups"),
    }

    name: Literal["segformer"] = "segformer"
    encoder: str = "mit_b0"
    width: PositiveInt = 256  # of the decoder
    dropout: float = Field(0.0, ge=0, lt=1)  # of whole channels, before the last convolution
    channels: tuple[PositiveInt, ...] = Field((32, 64, 160, 256), min_length=1)  # one a stage, finest first
    depths: tuple[PositiveInt, ...] = (2, 2, 2, 2)  # transformer blocks a stage
    heads: tuple[PositiveInt, ...] = (1, 2, 5, 8)  # attention heads a stage
    reductions: tuple[PositiveInt, ...] = (8, 4, 2, 1)
    mlp_ratio: PositiveInt = 4
    drop_path: float = Field(0.0, ge=0, lt=1)  # stochastic depth (Huang et al., ECCV 2016), growing with the depth
    normalisation: Literal["group", "batch"] = "group"  # of the decoder; the encoder has layer norm
    groups: PositiveInt = 8  # of group normalisation alone

    @model_validator(mode="after")
    def _stages_agree(self) -> SegFormerConfig:
        for key in ("depths", "heads", "reductions"):
            values = getattr(self, key)
            if len(values) != len(self.channels):
                raise ValueError(f"{key} has {len(values)} entries, but {len(self.channels)} channels need as many")
        for width, heads in zip(self.channels, self.heads, strict=True):
            if width % heads:
                raise ValueError(f"heads must divide channels, but {heads} does not divide {width}; change one")
        if self.normalisation == "group" and self.spatial_dims == 3 and self.width % self.groups:
            raise ValueError(f"width {self.width} cannot be split in {self.groups} groups; change width or groups")
        return self

    def divisor(self) -> tuple[int, ...]:
        if self.spatial_dims == 2:
            return (STEPS_2D,) * 2
        spacings = [PATCH_STRIDE * 2**stage for stage in range(len(self.channels))]
        needed = (spacing * reduction for spacing, reduction in zip(spacings, self.reductions, strict=True))
        return (math.lcm(*needed, spacings[-1]),) * 3

    def _build_2d(self, in_channels: int, out_channels: int) -> nn.Module:
        from medseg.networks.encoders.smp_encoders import smp_network

        return smp_network(
            "Segformer",
            self.encoder,
            (in_channels, out_channels),
            self.divisor(),
            self.dropout,
            decoder_segmentation_channels=self.width,
        )

    def _build_3d(self, in_channels: int, out_channels: int) -> nn.Module:
        from medseg.networks.shallow_convolution import guard_shallow_grids
        from medseg.networks.transformers.segformer_module import SegFormer

        return guard_shallow_grids(SegFormer(self, in_channels, out_channels))
