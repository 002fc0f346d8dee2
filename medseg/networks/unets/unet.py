"""The U-Net's config: the choices that the literature compares, each by one key, none by another class."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import model_validator

from medseg.networks.base import PositiveInt
from medseg.networks.unets.u_shape import UShapedConfig

if TYPE_CHECKING:
    from torch import nn


class UNetConfig(UShapedConfig):
    """U-Net in 2D and 3D, plain or residual.

    Ronneberger et al., MICCAI 2015 (2D); Cicek et al., MICCAI 2016 (3D); Zhang et al., IEEE GRSL 2018 (residual, here
    with the activation after the sum as in He et al., CVPR 2016); Isensee et al., Nature Methods 2021 (strided,
    instance norm, LeakyReLU: the defaults here; deep supervision).

    On CUDA, max and average pooling and interpolation in 3D have no bit-reproducible gradient; the defaults have.
    """

    name: Literal["unet"] = "unet"
    convs: PositiveInt = 2  # convolutions a stage
    residual: bool = False
    downsampling: Literal["strided", "max_pool", "average_pool"] = "strided"
    upsampling: Literal["transposed", "interpolated"] = "transposed"
    skips: Literal["concatenate", "add", "none"] = "concatenate"
    normalisation: Literal["instance", "batch", "group", "none"] = "instance"
    groups: PositiveInt = 8  # only with normalisation: group (Wu and He, ECCV 2018)
    activation: Literal["leaky_relu", "relu", "prelu", "elu", "gelu", "silu"] = "leaky_relu"

    @model_validator(mode="after")
    def _consistent(self) -> UNetConfig:
        unequal = [width for width in self.channels if width % self.groups]
        if self.normalisation == "group" and unequal:
            raise ValueError(f"channels {unequal} cannot be split in {self.groups} groups; change channels or groups")
        if self.checkpointing and self.normalisation == "batch":
            raise ValueError("checkpointing would update batch statistics twice a step; use another normalisation")
        if self.skips == "none" and any("skip" in module.at for module in self.attention):
            raise ValueError("attention at skip has nothing to weigh where skips is none; place it elsewhere")
        return self

    def receptive_field(self) -> tuple[int, ...]:
        """Voxels per axis that one voxel of the coarsest stage sees: 1 + sum of (kernel - 1) x its input's spacing."""
        return tuple(
            1 + sum((kernel - 1) * spacing for kernel, spacing in self._chain(axis))
            for axis in range(self.spatial_dims)
        )

    def _chain(self, axis: int) -> Iterator[tuple[int, int]]:
        """Each kernel of the encoder along one axis, with the spacing in voxels of the grid that it reads."""
        spacing = 1
        for stride, kernel in zip(self.stage_strides(), self.stage_kernels(), strict=True):
            if self.downsampling == "strided":
                yield kernel[axis], spacing
                spacing *= stride[axis]
            else:
                yield stride[axis], spacing
                spacing *= stride[axis]
                yield kernel[axis], spacing
            yield from [(kernel[axis], spacing)] * (self.convs - 1)

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        from medseg.networks.shallow_convolution import guard_shallow_grids
        from medseg.networks.unets.unet_module import UNet, plain_encoder

        return guard_shallow_grids(UNet(self, plain_encoder(self, in_channels), out_channels))
