"""Spatial attention: one weight a voxel, from the mean and the maximum of its channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import field_validator

from medseg.networks.attention.base import AttentionConfig
from medseg.networks.base import PositiveInt

if TYPE_CHECKING:
    from torch import nn


def require_odd(size: int) -> int:
    """Raises ValueError for an even kernel."""
    if size % 2 == 0:
        raise ValueError(f"{size} must be odd, so that the map keeps the grid")
    return size


class SpatialConfig(AttentionConfig):
    """The spatial half of CBAM alone (Woo et al., ECCV 2018)."""

    name: Literal["spatial"] = "spatial"
    kernel_size: PositiveInt = 7  # odd

    _odd = field_validator("kernel_size")(require_odd)

    def build(self, dims: int, width: int) -> nn.Module:
        from medseg.networks.attention.spatial_module import SpatialAttention

        return SpatialAttention(dims, self.kernel_size)
