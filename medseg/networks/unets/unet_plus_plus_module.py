"""MONAI's U-Net++ with its outputs in our order and no head that nothing teaches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from monai.networks.nets.basic_unet import UpCat
from monai.networks.nets.basic_unetplusplus import BasicUNetPlusPlus
from torch import nn

from medseg.networks.recomputation import recompute_in_backward

if TYPE_CHECKING:
    from medseg.networks.unets.unet_plus_plus import UNetPlusPlusConfig


class UNetPlusPlus(BasicUNetPlusPlus):
    """Image `(B, C, *S)` -> logits `(B, K, *S)`; with deep supervision, in train mode, a list, the last node first."""

    def __init__(self, config: UNetPlusPlusConfig, in_channels: int, out_channels: int) -> None:
        super().__init__(
            spatial_dims=config.spatial_dims,
            in_channels=in_channels,
            out_channels=out_channels,
            features=(*config.channels, config.last_channels),
            deep_supervision=config.deep_supervision > 0,
            norm=("instance", {"affine": True}) if config.normalisation == "instance" else "batch",
            bias=False,  # the normalisation would take it off again
            dropout=config.dropout,
        )
        self.heads = 1 + config.deep_supervision
        for node in range(1, 4 - config.deep_supervision):
            setattr(self, f"final_conv_0_{node}", nn.Identity())
        for module in self.modules():
            if type(module) is UpCat:
                module.__class__ = Node
        if config.checkpointing:
            recompute_in_backward(child for name, child in self.named_children() if not name.startswith("final"))

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        logits: list[torch.Tensor] = super().forward(image)[::-1]
        return logits[: self.heads] if self.training and self.heads > 1 else logits[0]


class Node(UpCat):
    """MONAI's node without its padding of odd grids, which torch.compile cannot take and our sizes never need."""

    def forward(self, features: torch.Tensor, skip: torch.Tensor | None) -> torch.Tensor:
        upsampled = self.upsample(features)
        joined: torch.Tensor = self.convs(upsampled if skip is None else torch.cat([skip, upsampled], dim=1))
        return joined
