"""How the weight of a loss changes while a network trains."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, model_validator

from medseg.config import Settings


class Ramp(Settings):
    """A factor that is `first` until the share `start` of training is done, `last` from the share `end` on.

    In between it follows a line or half a cosine wave. It depends on the step alone, so that resuming needs no state.
    """

    shape: Literal["linear", "cosine"] = "linear"
    first: float = Field(0.0, ge=0)
    last: float = Field(1.0, ge=0)
    start: float = Field(0.0, ge=0, le=1)
    end: float = Field(1.0, ge=0, le=1)

    @model_validator(mode="after")
    def _runs_forward(self) -> Ramp:
        if self.start >= self.end:
            raise ValueError(f"the ramp starts at {self.start} and ends at {self.end} of training; let start be lower")
        if self.first == self.last == 0:
            raise ValueError("first and last are both 0, so that the term would never count; raise one, or drop it")
        return self

    def factor(self, progress: float) -> float:
        """The factor when the share `progress` of the training steps, 0 to 1, is done."""
        share = min(max((progress - self.start) / (self.end - self.start), 0.0), 1.0)
        if self.shape == "cosine":
            share = 0.5 * (1 - math.cos(math.pi * share))
        return self.first + (self.last - self.first) * share
