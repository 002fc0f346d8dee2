"""The V-Net from MONAI's transitions, because MONAI's own class fixes its width, its depth and its dropout."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from monai.networks.blocks.convolutions import Convolution
from monai.networks.layers.factories import Norm
from monai.networks.nets.vnet import DownTransition, OutputTransition, UpTransition, get_acti_layer
from torch import nn

if TYPE_CHECKING:
    from medseg.networks.unets.vnet import VNetConfig

DROPPING = 2  # coarsest stages with dropout of their own, down and up


class VNet(nn.Module):
    """Image `(B, C, *S)` -> logits `(B, K, *S)`; by default, with MONAI's weights in MONAI's order."""

    def __init__(self, config: VNetConfig, in_channels: int, out_channels: int) -> None:
        super().__init__()
        dims, act, stages = config.spatial_dims, _activation(config), len(config.convs_down)
        widths = [config.width * 2**stage for stage in range(stages + 1)]
        own_dropout = [None] * (stages - DROPPING) + [config.dropout] * min(stages, DROPPING)  # finest first
        self.first = RepeatedInput(dims, in_channels, config.width, act)
        self.encoder = nn.ModuleList(
            DownTransition(dims, width, convs, act, dropout_prob=own, dropout_dim=dims)
            for width, convs, own in zip(widths, config.convs_down, own_dropout, strict=False)
        )
        # What comes from below and what joins it: both have half the channels of the decoder's stage.
        joined = [2 * width for width in widths[:-1]][::-1]
        below = [widths[-1], *joined[:-1]]
        self.decoder = nn.ModuleList(
            UpTransition(dims, *grown, convs, act, dropout_prob=(own, config.dropout), dropout_dim=dims)
            for grown, convs, own in zip(
                zip(below, joined, strict=True), config.convs_up, own_dropout[::-1], strict=True
            )
        )
        self.last = OutputTransition(dims, joined[-1], out_channels, act)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        skips = [self.first(image)]
        for stage in self.encoder:
            skips.append(stage(skips[-1]))
        features = skips.pop()
        for stage in self.decoder:
            features = stage(features, skips.pop())
        logits: torch.Tensor = self.last(features)
        return logits


class RepeatedInput(nn.Module):
    """MONAI's InputTransition for any number of channels: feature i is a convolution's plus channel i modulo C."""

    def __init__(self, dims: int, in_channels: int, width: int, act: Any) -> None:
        super().__init__()
        self.act_function = get_acti_layer(act, width)
        self.conv_block = Convolution(dims, in_channels, width, kernel_size=5, act=None, norm=Norm.BATCH, bias=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        features = self.conv_block(image)
        width, channels = features.shape[1], image.shape[1]
        repeated = image.repeat(1, -(-width // channels), *[1] * (image.ndim - 2))[:, :width]
        activated: torch.Tensor = self.act_function(features + repeated)
        return activated


def _activation(config: VNetConfig) -> Any:
    """The activation in MONAI's words; PReLU has a slope for each channel."""
    return config.activation if config.activation == "prelu" else (config.activation, {"inplace": True})
