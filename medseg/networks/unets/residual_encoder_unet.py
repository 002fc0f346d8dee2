"""The residual-encoder U-Net's config: nnU-Net's ResEnc, whose encoder is deep and whose decoder is light."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from medseg.networks.base import PositiveInt
from medseg.networks.unets.u_shape import UShapedConfig
from medseg.networks.unets.unet import UNetConfig

if TYPE_CHECKING:
    from torch import nn


class ResidualEncoderUNetConfig(UShapedConfig):
    """nnU-Net's residual-encoder U-Net (Isensee et al., MICCAI 2024, "nnU-Net Revisited").

    A stem, then blocks of two convolutions each with a shortcut around them; the first block of a stage is strided, its
    shortcut an average pool and, where the width changes, a 1x1 convolution (He et al., CVPR 2019: ResNet-D). The
    decoder is the plain U-Net's. Instance norm and LeakyReLU throughout. The defaults are the paper's blocks and widths
    on 6 stages: patches are multiples of 32. On CUDA, torch promises no bit-reproducible gradient of 3D average pools.
    """

    name: Literal["residual_encoder_unet"] = "residual_encoder_unet"
    channels: tuple[PositiveInt, ...] = Field((32, 64, 128, 256, 320, 320), min_length=2)  # one a stage, finest first
    blocks: tuple[PositiveInt, ...] = (1, 3, 4, 6, 6, 6)  # one number a stage
    decoder_convs: PositiveInt = 1  # convolutions a stage

    @model_validator(mode="after")
    def _blocks_fit(self) -> ResidualEncoderUNetConfig:
        if len(self.blocks) != len(self.channels):
            raise ValueError(f"blocks has {len(self.blocks)} entries, but {len(self.channels)} channels need as many")
        return self

    def receptive_field(self) -> tuple[int, ...]:
        """Voxels per axis that one voxel of the coarsest stage sees.

        1 + (k - 1) of the stem + for each block the wider of its two paths: (k - 1) x (spacing before it + spacing
        after it) of the convolutions, (stride - 1) x spacing before it of the shortcut's pool.
        """
        seen = []
        for axis in range(self.spatial_dims):
            spacing, field = 1, self.stage_kernels()[0][axis]
            for stride, kernel, count in zip(self.stage_strides(), self.stage_kernels(), self.blocks, strict=True):
                coarser, reach = spacing * stride[axis], kernel[axis] - 1
                field += max(reach * (spacing + coarser), coarser - spacing) + (count - 1) * 2 * reach * coarser
                spacing = coarser
            seen.append(field)
        return tuple(seen)

    def plain(self) -> UNetConfig:
        """The U-Net whose decoder this one has, and with whose parts its encoder is built."""
        shared = {key: getattr(self, key) for key in UShapedConfig.model_fields if key != "name"}
        return UNetConfig(**shared, convs=self.decoder_convs)

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        from medseg.networks.shallow_convolution import guard_shallow_grids
        from medseg.networks.unets.residual_encoder_unet_module import residual_encoder
        from medseg.networks.unets.unet_module import UNet

        encoder = residual_encoder(self.plain(), self.blocks, in_channels)
        return guard_shallow_grids(UNet(self.plain(), encoder, out_channels))
