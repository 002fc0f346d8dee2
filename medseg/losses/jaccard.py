"""The soft Jaccard loss's config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from medseg.labels import LabelSet
from medseg.losses.base import LossConfig

if TYPE_CHECKING:
    from torch import nn


class JaccardConfig(LossConfig):
    """1 - mean over labels of TP / (TP + FP + FN), the soft intersection over union (Rahman and Wang, ISVC 2016).

    It is the Tversky loss with both weights 1; its keys are those of 'dice'.
    """

    name: Literal["jaccard"] = "jaccard"
    batch: bool = False
    include_background: bool = False
    smooth: float = Field(1e-5, gt=0)  # voxels

    def build(self, labels: LabelSet) -> nn.Module:
        from medseg.losses.overlap_module import OverlapLoss, Weighing

        return OverlapLoss(labels, Weighing(1.0, 1.0, self.batch, self.include_background, self.smooth))
