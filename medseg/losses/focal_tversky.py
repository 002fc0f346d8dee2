"""The focal Tversky loss's config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from medseg.labels import LabelSet
from medseg.losses.base import LossConfig

if TYPE_CHECKING:
    from torch import nn


class FocalTverskyConfig(LossConfig):
    """Mean over labels of (1 - Tversky index)^(1 / gamma) (Abraham and Khan, ISBI 2019); gamma = 1 is 'tversky'.

    With gamma above 1 a label that is nearly right still has a steep slope. `alpha` weighs false positives and `beta`
    false negatives, as in 'tversky' (the paper swaps the letters). The other keys are those of 'dice'.
    """

    name: Literal["focal_tversky"] = "focal_tversky"
    alpha: float = Field(0.3, ge=0)
    beta: float = Field(0.7, ge=0)
    gamma: float = Field(4 / 3, ge=1)  # Abraham and Khan's best
    batch: bool = False
    include_background: bool = False
    smooth: float = Field(1e-5, gt=0)  # voxels

    @model_validator(mode="after")
    def _weighs_something(self) -> FocalTverskyConfig:
        if self.alpha == self.beta == 0:
            raise ValueError("alpha and beta are both 0, so that no error would count; raise one")
        return self

    def build(self, labels: LabelSet) -> nn.Module:
        from medseg.losses.overlap_module import FocalTverskyLoss, Weighing

        weighing = Weighing(self.alpha, self.beta, self.batch, self.include_background, self.smooth)
        return FocalTverskyLoss(labels, weighing, 1 / self.gamma)
