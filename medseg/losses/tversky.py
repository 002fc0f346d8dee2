"""The Tversky loss's config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from medseg.labels import LabelSet
from medseg.losses.base import LossConfig

if TYPE_CHECKING:
    from torch import nn


class TverskyConfig(LossConfig):
    """1 - mean over labels of TP / (TP + alpha FP + beta FN) (Salehi et al., MLMI 2017).

    `alpha` weighs false positives, `beta` false negatives: beta above alpha asks for recall. Both 0.5 is the Dice loss
    exactly: `smooth` is added to 2 TP and to twice the denominator. The other keys are those of 'dice'.
    """

    name: Literal["tversky"] = "tversky"
    alpha: float = Field(0.3, ge=0)  # Salehi et al.: 0.3 and 0.7 did best on small lesions
    beta: float = Field(0.7, ge=0)
    batch: bool = False
    include_background: bool = False
    smooth: float = Field(1e-5, gt=0)  # voxels

    @model_validator(mode="after")
    def _weighs_something(self) -> TverskyConfig:
        if self.alpha == self.beta == 0:
            raise ValueError("alpha and beta are both 0, so that no error would count; raise one")
        return self

    def build(self, labels: LabelSet) -> nn.Module:
        from medseg.losses.overlap_module import OverlapLoss, Weighing

        return OverlapLoss(labels, Weighing(self.alpha, self.beta, self.batch, self.include_background, self.smooth))
