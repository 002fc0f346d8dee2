"""The attention gate: a skip passes on only what the coarser stage asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from medseg.networks.attention.base import AttentionConfig

if TYPE_CHECKING:
    from torch import nn


class GateConfig(AttentionConfig):
    """Additive attention gate (Oktay et al., MIDL 2018), on skips only: it needs the coarser stage's signal.

    That signal comes as the decoder has brought it to the skip's grid and width, where Oktay et al. bring the skip to
    the coarser grid and the map back by interpolation.
    """

    name: Literal["gate"] = "gate"
    at: tuple[Literal["skip"], ...] = Field(("skip",), min_length=1)

    def build(self, dims: int, width: int) -> nn.Module:
        from medseg.networks.attention.gate_module import AttentionGate

        return AttentionGate(dims, width)
