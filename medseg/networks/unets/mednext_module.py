"""MONAI's MedNeXt with as many heads as its config asks for, and a list of logits as all our networks give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from monai.networks.blocks.mednext_block import MedNeXtBlock
from monai.networks.nets.mednext import MedNeXt as MonaiMedNeXt
from torch import nn

from medseg.networks.recomputation import recompute_in_backward

if TYPE_CHECKING:
    from medseg.networks.unets.mednext import MedNeXtConfig


class MedNeXt(MonaiMedNeXt):
    """Image `(B, C, *S)` -> logits `(B, K, *S)`; with deep supervision, in train mode, a list, the finest first."""

    def __init__(self, config: MedNeXtConfig, in_channels: int, out_channels: int) -> None:
        *encoder, bottleneck = config.blocks
        *expansions, widest = config.expansions
        super().__init__(
            spatial_dims=config.spatial_dims,
            init_filters=config.width,
            in_channels=in_channels,
            out_channels=out_channels,
            encoder_expansion_ratio=expansions,
            decoder_expansion_ratio=expansions[::-1],
            bottleneck_expansion_ratio=widest,
            kernel_size=config.kernel_size,
            deep_supervision=config.deep_supervision > 0,
            use_residual_connection=True,
            blocks_down=encoder,
            blocks_bottleneck=bottleneck,
            blocks_up=encoder[::-1],
            global_resp_norm=config.response_norm,
        )
        self.heads = 1 + config.deep_supervision
        for i in range(len(encoder) - config.deep_supervision if config.deep_supervision else 0):
            self.out_blocks[i] = nn.Identity()  # MONAI has a head on each stage, the coarsest first
        if config.checkpointing:
            recompute_in_backward(module for module in self.modules() if isinstance(module, MedNeXtBlock))

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        logits = super().forward(image)
        return logits if isinstance(logits, torch.Tensor) else list(logits[: self.heads])
