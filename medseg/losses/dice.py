"""The soft Dice loss's config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from medseg.labels import LabelSet
from medseg.losses.base import LossConfig

if TYPE_CHECKING:
    from torch import nn


class DiceConfig(LossConfig):
    """1 - mean over labels of (2 TP + smooth) / (sum p + sum t + smooth), TP = sum p t (Milletari et al., 3DV 2016).

    `batch` pools the sums over the batch before the ratio (nnU-Net's batch Dice), so that a patch without a label does
    not weigh as much as one full of it; otherwise the mean is over patches and labels. A label absent from truth and
    prediction scores 1; one absent from the truth alone scores about 0 for any prediction well above `smooth`.
    The background is left out unless `include_background`; overlapping labels have none.
    """

    name: Literal["dice"] = "dice"
    batch: bool = False
    include_background: bool = False
    smooth: float = Field(1e-5, gt=0)  # voxels

    def build(self, labels: LabelSet) -> nn.Module:
        from medseg.losses.overlap_module import OverlapLoss, Weighing

        return OverlapLoss(labels, Weighing(0.5, 0.5, self.batch, self.include_background, self.smooth))
