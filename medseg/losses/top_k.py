"""The config of the cross-entropy over the hardest voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from medseg.labels import LabelSet
from medseg.losses.base import LossConfig

if TYPE_CHECKING:
    from torch import nn


class TopKConfig(LossConfig):
    """Mean of -log p(truth) over the `share` of the batch's voxels where it is largest; 1 is the cross-entropy.

    Online hard example mining (Shrivastava et al., CVPR 2016) for voxels (Wu et al., arXiv:1605.06885, 2016). Of
    overlapping labels the hardest pairs of voxel and label are taken. At least one voxel is.
    """

    name: Literal["top_k"] = "top_k"
    share: float = Field(0.1, gt=0, le=1)

    def build(self, labels: LabelSet) -> nn.Module:
        from medseg.losses.top_k_module import TopKLoss

        return TopKLoss(labels, self.share)
