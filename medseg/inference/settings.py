"""How a network is slid over a volume."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from medseg.config import Settings

Average = Literal["logits", "probabilities"]  # of an ensemble


class InferenceSettings(Settings):
    """Windows, test-time augmentation, precision."""

    overlap: float = Field(default=0.5, ge=0, lt=1)  # share of a window that it has in common with the next
    window_batch: int = Field(default=4, ge=1)
    blending: Literal["gaussian", "constant"] = "gaussian"  # weight of a window's voxels
    flips: tuple[Annotated[int, Field(ge=0)], ...] = ()  # axes; all their combinations are averaged
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
