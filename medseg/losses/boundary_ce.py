"""The config of the cross-entropy that weighs voxels near a boundary more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from medseg.labels import LabelSet
from medseg.losses.base import LossConfig

if TYPE_CHECKING:
    from torch import nn


class BoundaryCEConfig(LossConfig):
    """Weighted mean of -log p(truth), the weights 1 + w0 exp(-d^2 / (2 sigma^2)) (Ronneberger et al., MICCAI 2015).

    d is the distance, in voxels, from a voxel's centre to the nearest boundary between its label and any other (the
    paper, of many cells, adds the distances to the two nearest). Overlapping labels have boundaries of their own. Where
    a patch has no boundary all weights are 1. Ignored voxels cost nothing, and no distance runs to them.
    """

    name: Literal["boundary_ce"] = "boundary_ce"
    w0: float = Field(10.0, ge=0)  # Ronneberger et al.
    sigma: float = Field(5.0, gt=0)  # voxels; Ronneberger et al.

    def build(self, labels: LabelSet) -> nn.Module:
        from medseg.losses.boundary_module import BoundaryCrossEntropy

        return BoundaryCrossEntropy(labels, self.w0, self.sigma)
