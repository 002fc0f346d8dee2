"""DeepLabV3+'s config: segmentation-models-pytorch's network in 2D, one built here in 3D."""

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


class DeepLabV3PlusConfig(BorrowedIn2DConfig):
    """DeepLabV3+ (Chen et al., ECCV 2018): atrous convolutions at several rates see context, fine features sharpen it.

    The encoder stops halving at `output_stride` and dilates instead. At stride 16 the paper's `rates` are 6, 12, 18; at
    stride 8 twice that. In 2D it is segmentation-models-pytorch's, with any encoder that can be dilated; in 3D the
    encoder is residual. On CUDA, pooling and interpolation have no bit-reproducible gradient.
    """

    only: ClassVar[Mapping[int, tuple[str, ...]]] = {
        **BorrowedIn2DConfig.only,
        3: ("channels", "blocks", "low_level_width", "normalisation", "groups"),
    }

    name: Literal["deeplabv3plus"] = "deeplabv3plus"
    output_stride: Literal[16, 8] = 16
    rates: tuple[PositiveInt, PositiveInt, PositiveInt] = (6, 12, 18)
    width: PositiveInt = 256  # of the pyramid and the decoder
    dropout: float = Field(0.0, ge=0, lt=1)  # of whole channels, before the last convolution
    channels: tuple[PositiveInt, ...] = Field((32, 64, 128, 256), min_length=2)  # one a stage, from stride 4 on
    blocks: tuple[PositiveInt, ...] = (2, 2, 2, 2)  # residual blocks a stage
    low_level_width: PositiveInt = 48  # what the features at stride 4 are squeezed to; in 2D always 48
    normalisation: Literal["group", "batch"] = "group"  # instance norm would erase the pooled branch, a constant
    groups: PositiveInt = 8  # of group normalisation alone

    @model_validator(mode="after")
    def _plan_works(self) -> DeepLabV3PlusConfig:
        problem = plan_problem(self.channels, self.blocks, self.output_stride)
        if self.normalisation == "group" and self.spatial_dims == 3:
            widths = (*self.channels, self.low_level_width, self.width)
            problem = problem or group_problem(widths, self.width, self.groups)
        if problem is not None:
            raise ValueError(problem)
        return self

    def divisor(self) -> tuple[int, ...]:
        step = step_of(self.encoder, self.output_stride) if self.spatial_dims == 2 else self.output_stride
        return (step,) * self.spatial_dims

    def receptive_field(self) -> tuple[int, ...]:
        """Voxels per axis that the widest atrous branch sees; the pooled branch sees the whole patch.

        Raises ConfigError in 2D.
        """
        self._check_is_built_here("receptive field")
        seen = encoder_field(self.blocks, self.output_stride) + 2 * max(self.rates) * self.output_stride
        return (seen,) * self.spatial_dims

    def _build_2d(self, in_channels: int, out_channels: int) -> nn.Module:
        from medseg.networks.encoders.smp_encoders import smp_network

        return smp_network(
            "DeepLabV3Plus",
            self.encoder,
            (in_channels, out_channels),
            self.divisor(),
            self.dropout,
            encoder_output_stride=self.output_stride,
            decoder_channels=self.width,
            decoder_atrous_rates=self.rates,
            decoder_aspp_dropout=0.0,
        )

    def _build_3d(self, in_channels: int, out_channels: int) -> nn.Module:
        from medseg.networks.fully_convolutional.deeplabv3plus_module import DeepLabV3Plus
        from medseg.networks.shallow_convolution import guard_shallow_grids

        return guard_shallow_grids(DeepLabV3Plus(self, in_channels, out_channels))
