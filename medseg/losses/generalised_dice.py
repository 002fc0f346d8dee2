"""The generalised Dice loss's config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from medseg.labels import LabelSet
from medseg.losses.base import LossConfig

if TYPE_CHECKING:
    from torch import nn


class GeneralisedDiceConfig(LossConfig):
    """1 - (2 sum w TP + smooth) / (sum w (sum p + sum t) + smooth) over labels (Sudre et al., DLMIA 2017).

    w is 1 / voxels^2 of the label in the truth, relative to the rarest one present, so that small labels weigh as much
    as large ones; one without voxels weighs as the rarest, and all weigh 1 where all are absent. Sums run over the
    patch, or over the `batch`; the background takes part, as in the paper, unless `include_background` is off.
    """

    name: Literal["generalised_dice"] = "generalised_dice"
    batch: bool = False
    include_background: bool = True
    smooth: float = Field(1e-5, gt=0)  # voxels of the rarest label

    def build(self, labels: LabelSet) -> nn.Module:
        from medseg.losses.generalised_dice_module import GeneralisedDiceLoss

        return GeneralisedDiceLoss(labels, self.batch, self.include_background, self.smooth)
