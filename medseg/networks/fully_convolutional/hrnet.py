"""HRNet's config: timm's network as an encoder, with the head that its authors give it for segmentation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from medseg.networks.encoders.encoder import EncoderConfig

if TYPE_CHECKING:
    from torch import nn

COARSEST = 32  # voxels between two neighbours of the coarsest of its four grids


class HRNetConfig(EncoderConfig):
    """HRNetV2 (Wang et al., TPAMI 2020): grids at strides 4 to 32 run side by side and exchange what they see.

    timm builds what runs in parallel, as `tu-hrnet_w18`, `w30` and so on by the width of the finest grid, or
    `tu-hrnet_w18_small`; its four grids are brought to stride 4 and joined by a 1 x 1 convolution. 2D only.
    """

    name: Literal["hrnet"] = "hrnet"
    spatial_dims: Literal[2] = 2
    encoder: str = "tu-hrnet_w18"
    dropout: float = Field(0.0, ge=0, lt=1)  # of whole channels, before the last convolution

    @model_validator(mode="after")
    def _is_an_hrnet(self) -> HRNetConfig:
        if not self.encoder.startswith("tu-hrnet"):
            raise ValueError(f"encoder {self.encoder!r} is no HRNet; name one of timm's, such as 'tu-hrnet_w18'")
        return self

    def divisor(self) -> tuple[int, ...]:
        return (COARSEST,) * self.spatial_dims

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        from medseg.networks.encoders.smp_encoders import EncoderDecoder, finished, make_encoder
        from medseg.networks.fully_convolutional.hrnet_module import JoinedGrids, head

        # Without its location the features would be those that timm widens for classification.
        encoder = make_encoder(self.encoder, in_channels, feature_location="")
        joined = JoinedGrids(encoder.out_channels[-4:])
        network = EncoderDecoder(encoder, joined, head(joined.width, out_channels), self.dropout)
        return finished(network, in_channels, self.divisor(), self.encoder)
