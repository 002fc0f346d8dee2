"""Any decoder of segmentation-models-pytorch on any encoder of it or of timm, by two keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from medseg.networks.encoders.encoder import EncoderConfig
from medseg.networks.encoders.mix_transformer import is_mix_transformer, step_of

if TYPE_CHECKING:
    from torch import nn

_UNET = {"decoder_channels": lambda depth: (256, 128, 64, 32, 16)[-depth:]}
# decoder -> class of the library, and the settings of it that follow from the encoder's depth
_DECODERS: dict[str, tuple[str, dict[str, Any]]] = {
    "unet": ("Unet", _UNET),
    "unet_plus_plus": ("UnetPlusPlus", _UNET),
    "manet": ("MAnet", _UNET),
    "linknet": ("Linknet", {}),
    "fpn": ("FPN", {"decoder_dropout": lambda depth: 0.0, "upsampling": lambda depth: 2 ** (depth - 3)}),
    "pspnet": ("PSPNet", {"psp_dropout": lambda depth: 0.0, "upsampling": lambda depth: 2**depth}),
    "deeplabv3": ("DeepLabV3", {"decoder_aspp_dropout": lambda depth: 0.0}),
    "deeplabv3plus": ("DeepLabV3Plus", {"decoder_aspp_dropout": lambda depth: 0.0}),
    "pan": ("PAN", {}),
    "upernet": ("UPerNet", {}),
    "segformer": ("Segformer", {}),
}
_WITHOUT_MIT = ("unet_plus_plus", "linknet")  # they need features at stride 2, which Mix Transformers lack


class SMPConfig(EncoderConfig):
    """A network of segmentation-models-pytorch (Iakubovskii, 2019): a decoder, an encoder, its depth. 2D only.

    Settings of the decoders are the library's own; its dropouts are replaced by one before the head, so that the key
    means the same everywhere. DPT is left out: its vision transformers take images of one size only.
    """

    name: Literal["smp"] = "smp"
    spatial_dims: Literal[2] = 2
    decoder: Literal[
        "unet", "unet_plus_plus", "manet", "linknet", "fpn", "pspnet", "deeplabv3", "deeplabv3plus", "pan", "upernet",
        "segformer",
    ] = "unet"  # fmt: skip
    depth: int = Field(5, ge=3, le=5)  # how often the encoder halves the grid, but for dilated decoders
    dropout: float = Field(0.0, ge=0, lt=1)  # of whole channels, before the head

    @model_validator(mode="after")
    def _fits(self) -> SMPConfig:
        if self.decoder in _WITHOUT_MIT and is_mix_transformer(self.encoder):
            raise ValueError(
                f"decoder {self.decoder!r} reads features at stride 2, which encoder {self.encoder!r} lacks; "
                "choose another of the two"
            )
        if self.decoder == "fpn" and is_mix_transformer(self.encoder) and self.depth < 5:
            raise ValueError(
                f"decoder 'fpn' joins four features, and encoder {self.encoder!r} has fewer at depth {self.depth}; "
                "set depth: 5"
            )
        return self

    def divisor(self) -> tuple[int, ...]:
        step = 2**self.depth
        if self.decoder == "pan":  # its encoder dilates from stride 16 on, and its attention halves that grid thrice
            step = 8 * min(step, 16)
        return (step_of(self.encoder, step),) * self.spatial_dims

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        from medseg.networks.encoders.smp_encoders import smp_network

        architecture, settings = _DECODERS[self.decoder]
        return smp_network(
            architecture,
            self.encoder,
            (in_channels, out_channels),
            self.divisor(),
            self.dropout,
            encoder_depth=self.depth,
            **{key: of_depth(self.depth) for key, of_depth in settings.items()},
        )
