"""The FCN's config: the first network that answered for every pixel at once, in 2D and in 3D."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from medseg.networks.base import NetworkConfig, PositiveInt

if TYPE_CHECKING:
    from torch import nn

Five = tuple[PositiveInt, PositiveInt, PositiveInt, PositiveInt, PositiveInt]
COARSEST = 2**5  # voxels between two neighbours after five pools


class FCNConfig(NetworkConfig):
    """FCN-32s, -16s and -8s (Long et al., CVPR 2015): VGG's convolutions, then class scores of up to three depths.

    `stride` 32 takes the scores of the coarsest grid alone; 16 adds those of pool4, 8 those of pool3 as well. The paper
    has channels 64, 128, 256, 512, 512 and a classifier 4096 wide; in 3D its first layer alone, 7 x 7 x 7 x 512 x 4096,
    would hold 719 M weights, so that the defaults here are narrower. Unlike the paper's, stages are normalised, which
    lets the network learn from scratch, and padding keeps every grid aligned, so that nothing is cropped. The paper's
    dropout is 0.5.

    On CUDA, max pooling and interpolation in 3D have no bit-reproducible gradient.
    """

    name: Literal["fcn"] = "fcn"
    stride: Literal[32, 16, 8] = 8
    channels: Five = (32, 64, 128, 256, 256)  # one a stage, finest first
    convs: Five = (2, 2, 3, 3, 3)  # convolutions a stage; VGG-16: Simonyan and Zisserman, ICLR 2015
    classifier_width: PositiveInt = 256  # of fc6 and fc7
    classifier_kernel: PositiveInt = 7  # of fc6, odd
    normalisation: Literal["instance", "batch", "group", "none"] = "instance"  # in the stages; the classifier has none
    groups: PositiveInt = 8  # of group normalisation alone
    dropout: float = Field(0.0, ge=0, lt=1)  # of whole channels, after fc6 and fc7

    @model_validator(mode="after")
    def _consistent(self) -> FCNConfig:
        if self.classifier_kernel % 2 == 0:
            raise ValueError(f"classifier_kernel {self.classifier_kernel} must be odd, so that fc6 keeps the grid")
        unequal = [width for width in self.channels if width % self.groups]
        if self.normalisation == "group" and unequal:
            raise ValueError(f"channels {unequal} cannot be split in {self.groups} groups; change channels or groups")
        return self

    def divisor(self) -> tuple[int, ...]:
        return (COARSEST,) * self.spatial_dims

    def receptive_field(self) -> tuple[int, ...]:
        """Voxels per axis that one score of the coarsest grid sees; 404 with VGG-16's convolutions and a 7 wide fc6."""
        return (1 + sum((kernel - 1) * spacing for kernel, spacing in self._chain()),) * self.spatial_dims

    def _chain(self) -> Iterator[tuple[int, int]]:
        """Each kernel along an axis, with the spacing in voxels of the grid that it reads."""
        for stage, count in enumerate(self.convs):
            yield from [(3, 2**stage)] * count
            yield 2, 2**stage  # the pool
        yield self.classifier_kernel, COARSEST

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        from medseg.networks.fully_convolutional.fcn_module import FCN
        from medseg.networks.shallow_convolution import guard_shallow_grids

        return guard_shallow_grids(FCN(self, in_channels, out_channels))
