"""PSPNet's config: segmentation-models-pytorch's network in 2D, one built here in 3D."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from medseg.networks.base import PositiveInt
from medseg.networks.encoders.encoder import BorrowedIn2DConfig
from medseg.networks.encoders.mix_transformer import step_of
from medseg.networks.encoders.residual_plan import encoder_field, group_problem, plan_problem

if TYPE_CHECKING:
    from torch import nn

STRIDE = 8  # of the grid that is pooled


class PSPNetConfig(BorrowedIn2DConfig):
    """PSPNet (Zhao et al., CVPR 2017): means over the whole patch, its halves, thirds and sixths tell where things are.

    In 2D it is segmentation-models-pytorch's: the first three stages of any encoder, down to stride 8. In 3D the
    encoder is residual, and dilated from there on, as in the paper. On CUDA, adaptive pooling and interpolation have no
    bit-reproducible gradient.
    """

    only: ClassVar[Mapping[int, tuple[str, ...]]] = {
        **BorrowedIn2DConfig.only,
        3: ("channels", "blocks", "bins", "normalisation", "groups"),
    }

    name: Literal["pspnet"] = "pspnet"
    width: PositiveInt = 256  # of the convolution on the pyramid; the paper's 2D network has 512
    dropout: float = Field(0.0, ge=0, lt=1)  # of whole channels, before the last convolution
    channels: tuple[PositiveInt, ...] = Field((32, 64, 128, 256), min_length=2)  # one a stage, from stride 4 on
    blocks: tuple[PositiveInt, ...] = (2, 2, 2, 2)  # residual blocks a stage
    bins: tuple[PositiveInt, ...] = Field((1, 2, 3, 6), min_length=1)  # parts an axis; in 2D always these
    normalisation: Literal["group", "batch"] = "group"  # instance norm would erase the mean of the whole patch
    groups: PositiveInt = 8  # of group normalisation alone

    @model_validator(mode="after")
    def _plan_works(self) -> PSPNetConfig:
        if self.channels[-1] % len(self.bins):
            raise ValueError(f"the last of channels {list(self.channels)} must be a multiple of {len(self.bins)} bins")
        problem = plan_problem(self.channels, self.blocks, STRIDE)
        if self.normalisation == "group" and self.spatial_dims == 3:
            widths = (*self.channels, self.channels[-1] // len(self.bins), self.width)
            problem = problem or group_problem(widths, self.width, self.groups)
        if problem is not None:
            raise ValueError(problem)
        return self

    def divisor(self) -> tuple[int, ...]:
        step = step_of(self.encoder, STRIDE) if self.spatial_dims == 2 else STRIDE
        return (step,) * self.spatial_dims

    def receptive_field(self) -> tuple[int, ...]:
        """Voxels per axis that one voxel of the encoder sees; the pooled parts see the whole patch.

        Raises ConfigError in 2D.
        """
        self._check_is_built_here("receptive field")
        return (encoder_field(self.blocks, STRIDE),) * self.spatial_dims

    def _build_2d(self, in_channels: int, out_channels: int) -> nn.Module:
        from medseg.networks.encoders.smp_encoders import smp_network

        return smp_network(
            "PSPNet",
            self.encoder,
            (in_channels, out_channels),
            self.divisor(),
            self.dropout,
            encoder_depth=3,
            psp_out_channels=self.width,
            psp_dropout=0.0,
        )

    def _build_3d(self, in_channels: int, out_channels: int) -> nn.Module:
        from medseg.networks.fully_convolutional.pspnet_module import PSPNet
        from medseg.networks.shallow_convolution import guard_shallow_grids

        return guard_shallow_grids(PSPNet(self, in_channels, out_channels))
