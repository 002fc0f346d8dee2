"""Puts attention modules into a U-shaped network and names their maps after where they stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import nn

from medseg.networks.attention.base import AttentionConfig, Place
from medseg.networks.attention.gate_module import AttentionGate
from medseg.networks.attention.maps import AttentionMap


class SkipAttention(nn.ModuleList):
    """The modules of one skip, in their order; a gate sees the coarser stage too."""

    def forward(self, skip: torch.Tensor, coarser: torch.Tensor) -> torch.Tensor:
        for module in self:
            skip = module(skip, coarser) if isinstance(module, AttentionGate) else module(skip)
        return skip


def after_stages(
    attention: Sequence[AttentionConfig], path: Literal["encoder", "decoder"], dims: int, widths: Sequence[int]
) -> nn.ModuleList:
    """For each stage of a path, finest first, what follows it: nothing, or the modules whose `at` names its place."""
    places: list[Place] = [path] * len(widths)
    if path == "encoder":
        places[-1] = "bottleneck"
    stages = enumerate(zip(places, widths, strict=True))
    return nn.ModuleList(
        nn.Sequential(*_built(attention, place, dims, width, stage)) for stage, (place, width) in stages
    )


def on_skips(attention: Sequence[AttentionConfig], dims: int, widths: Sequence[int]) -> nn.ModuleList:
    """For each skip, finest first, the modules that it passes."""
    return nn.ModuleList(
        SkipAttention(_built(attention, "skip", dims, width, stage)) for stage, width in enumerate(widths)
    )


def _built(attention: Sequence[AttentionConfig], place: Place, dims: int, width: int, stage: int) -> list[nn.Module]:
    where = place if place == "bottleneck" else f"{place}.{stage}"
    return [_titled(one.build(dims, width), f"{where}.{one.name}") for one in attention if place in one.at]


def _titled(module: nn.Module, title: str) -> nn.Module:
    """The module, its maps named: "encoder.1.cbam.channel" for the map of the part `channel`."""
    for path, marker in module.named_modules():
        if isinstance(marker, AttentionMap):
            marker.title = ".".join([title, *path.split(".")[:-1]])
    return module
