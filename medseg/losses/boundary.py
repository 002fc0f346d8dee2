"""The boundary loss's config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from medseg.labels import LabelSet
from medseg.losses.base import LossConfig

if TYPE_CHECKING:
    from torch import nn


class BoundaryConfig(LossConfig):
    """Mean over voxels and labels of distance to the boundary x |p - t| (Kervadec et al., MIDL 2019).

    That is their integral of the signed distance times p, plus the constant that makes a perfect prediction cost 0:
    the gradient is theirs. The distance, in voxels, runs from a voxel's centre to the boundary half-way between the
    label and its surroundings (theirs to the label's outermost voxels, half a voxel further in). A label that is absent
    from a patch, or fills it, has no boundary there and costs nothing: add the loss to one of regions, as they do,
    ramping up. Ignored voxels belong to neither side: they cost nothing, and no distance runs to them.
    """

    name: Literal["boundary"] = "boundary"

    def build(self, labels: LabelSet) -> nn.Module:
        from medseg.losses.boundary_module import BoundaryLoss

        return BoundaryLoss(labels)
