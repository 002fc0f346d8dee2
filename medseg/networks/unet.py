"""The U-Net's config: the choices that the literature compares, each by one key, none by another class."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, Strict, model_validator

from medseg.networks.base import NetworkConfig, PerAxis, PositiveInt, per_axis

if TYPE_CHECKING:
    from torch import nn


class UNetConfig(NetworkConfig):
    """U-Net in 2D and 3D, plain or residual.

    Ronneberger et al., MICCAI 2015 (2D); Cicek et al., MICCAI 2016 (3D); Zhang et al., IEEE GRSL 2018 (residual, here
    with the activation after the sum as in He et al., CVPR 2016); Isensee et al., Nature Methods 2021 (strided,
    instance norm, LeakyReLU: the defaults here; deep supervision).

    On CUDA, max and average pooling and interpolation in 3D have no bit-reproducible gradient; the defaults have.
    """

    name: Literal["unet"] = "unet"
    channels: tuple[PositiveInt, ...] = Field((32, 64, 128, 256), min_length=2)  # one a stage, finest first
    convs: PositiveInt = 2  # convolutions a stage
    residual: bool = False
    downsampling: Literal["strided", "max_pool", "average_pool"] = "strided"
    upsampling: Literal["transposed", "interpolated"] = "transposed"
    skips: Literal["concatenate", "add", "none"] = "concatenate"
    normalisation: Literal["instance", "batch", "group", "none"] = "instance"
    groups: PositiveInt = 8  # of group normalisation (Wu and He, ECCV 2018)
    activation: Literal["leaky_relu", "relu", "prelu", "elu", "gelu", "silu"] = "leaky_relu"
    dropout: float = Field(0.0, ge=0, lt=1)  # of whole channels, after each normalisation (Tompson et al., CVPR 2015)
    deep_supervision: Annotated[int, Strict()] = Field(0, ge=0)  # heads below the finest; Isensee et al. use them all
    strides: tuple[PerAxis, ...] | None = None  # from each stage to the next: one fewer than channels; default 2
    kernel_sizes: tuple[PerAxis, ...] | None = None  # one a stage, odd; default 3
    checkpointing: bool = False  # recompute stages in the backward pass: less memory, about a third more time

    @model_validator(mode="after")
    def _consistent(self) -> UNetConfig:
        stages = len(self.channels)
        for key, values, count in (("strides", self.strides, stages - 1), ("kernel_sizes", self.kernel_sizes, stages)):
            if values is not None and len(values) != count:
                raise ValueError(f"{key} has {len(values)} entries, but {stages} channels need {count}")
            if any(len(per_axis(value, self.spatial_dims)) != self.spatial_dims for value in values or ()):
                raise ValueError(f"{key} {list(values or ())}: give one number, or {self.spatial_dims}, for each entry")
        if any(size % 2 == 0 for kernel in self.stage_kernels() for size in kernel):
            raise ValueError("kernel_sizes must be odd, so that a convolution keeps the grid")
        if self.deep_supervision > stages - 2:
            raise ValueError(
                f"deep_supervision is {self.deep_supervision}, but {stages} stages allow 0 to {stages - 2}"
            )
        unequal = [width for width in self.channels if width % self.groups]
        if self.normalisation == "group" and unequal:
            raise ValueError(f"channels {unequal} cannot be split in {self.groups} groups; change channels or groups")
        if self.checkpointing and self.normalisation == "batch":
            raise ValueError("checkpointing would update batch statistics twice a step; use another normalisation")
        return self

    def stage_strides(self) -> list[tuple[int, ...]]:
        """The stride into each stage, per axis; 1 into the first."""
        steps = self.strides or (2,) * (len(self.channels) - 1)
        return [per_axis(step, self.spatial_dims) for step in (1, *steps)]

    def stage_kernels(self) -> list[tuple[int, ...]]:
        """The kernel size of each stage, per axis."""
        return [per_axis(size, self.spatial_dims) for size in self.kernel_sizes or (3,) * len(self.channels)]

    def divisor(self) -> tuple[int, ...]:
        return tuple(math.prod(steps) for steps in zip(*self.stage_strides(), strict=True))

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
        from medseg.networks.unet_module import UNet

        return guard_shallow_grids(UNet(self, in_channels, out_channels))
