"""The centreline Dice loss's config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from medseg.labels import LabelSet
from medseg.losses.base import LossConfig

if TYPE_CHECKING:
    from torch import nn


class ClDiceConfig(LossConfig):
    """1 - mean over patches and labels of the soft clDice, which keeps tubes connected (Shit et al., CVPR 2021).

    clDice is the harmonic mean of (sum s_p t + smooth) / (sum s_p + smooth), the share of the predicted skeleton that
    lies in the label, and the same with the parts swapped. A soft skeleton is what `iterations` erosions leave behind:
    take the largest radius of the tubes, in voxels, or more. Skeletons say nothing about a tube's width: add the loss
    to 'dice', as they do. Ignored voxels are outside of both prediction and label: skeletons end there.
    """

    name: Literal["cldice"] = "cldice"
    iterations: int = Field(3, ge=0)
    smooth: float = Field(1.0, gt=0)  # voxels; as in the authors' code

    def build(self, labels: LabelSet) -> nn.Module:
        from medseg.losses.cldice_module import ClDiceLoss

        return ClDiceLoss(labels, self.iterations, self.smooth)
