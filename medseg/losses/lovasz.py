"""The Lovász loss's config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from medseg.labels import LabelSet
from medseg.losses.base import LossConfig

if TYPE_CHECKING:
    from torch import nn


class LovaszConfig(LossConfig):
    """The convex surrogate of the Jaccard loss, by the Lovász extension (Berman et al., CVPR 2018).

    Exclusive labels: Lovász-softmax, the mean over the outputs whose label is present, background included.
    Overlapping labels: Lovász-hinge, the mean over labels; its margin is on the logits, 1 on the right side costs
    nothing. Voxels are ranked over the `batch`, or in each patch.
    """

    name: Literal["lovasz"] = "lovasz"
    batch: bool = True

    def build(self, labels: LabelSet) -> nn.Module:
        from medseg.losses.lovasz_module import LovaszLoss

        return LovaszLoss(labels, self.batch)
