"""What every attention module's config answers, so that the U-Net family takes any of them at any place that fits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from medseg.config import NamedSettings

if TYPE_CHECKING:
    from torch import nn

Place = Literal["encoder", "bottleneck", "decoder", "skip"]


class AttentionConfig(NamedSettings):
    """Base of the attention modules. One maps features `(B, width, *S)` to weighted ones of the same shape.

    `at`: after each stage of the encoder but the coarsest, after the coarsest (the bottleneck), after each stage of the
    decoder, on each skip. Several at one place follow one another as they are listed.
    """

    at: tuple[Place, ...] = Field(min_length=1)

    @abstractmethod
    def build(self, dims: int, width: int) -> nn.Module:
        """The module for features of so many spatial axes and channels; it draws its own first weights."""


def placing_problem(attention: Sequence[AttentionConfig]) -> str | None:
    """Why these cannot stand in one network: each may be given once a place, for its maps are named after both."""
    seen: set[tuple[str, str]] = set()
    for module in attention:
        for place in module.at:
            if (place, module.name) in seen:
                return f"attention names {module.name!r} at {place} twice; give it once a place"
            seen.add((place, module.name))
    return None
