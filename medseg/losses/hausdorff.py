"""The Hausdorff-distance loss's config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from medseg.labels import LabelSet
from medseg.losses.base import LossConfig

if TYPE_CHECKING:
    from torch import nn


class HausdorffConfig(LossConfig):
    """Mean over voxels and labels of (p - t)^2 (d_p^alpha + d_t^alpha) (Karimi and Salcudean, IEEE TMI 2019).

    d_t is a voxel's distance, in voxels, to the nearest on the other side of the label's boundary, d_p that of the
    boundary where the prediction passes 0.5, which gets no gradient. One that has no boundary in a patch has distance 0
    there: add the loss to one of regions, as they do. Ignored voxels belong to neither side: they cost nothing, and no
    distance runs to them.
    """

    name: Literal["hausdorff"] = "hausdorff"
    alpha: float = Field(2.0, gt=0)  # Karimi and Salcudean's best

    def build(self, labels: LabelSet) -> nn.Module:
        from medseg.losses.boundary_module import HausdorffLoss

        return HausdorffLoss(labels, self.alpha)
