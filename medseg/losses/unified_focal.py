"""The unified focal loss's config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from medseg.labels import LabelSet
from medseg.losses.base import LossConfig

if TYPE_CHECKING:
    from torch import nn


class UnifiedFocalConfig(LossConfig):
    """weight x focal + (1 - weight) x focal Tversky loss with shared settings (Yeung et al., CMIG 2022).

    Focal part: mean of a (1 - p)^gamma (-log p), a = delta in voxels of a label and 1 - delta in the background.
    Tversky part: mean over background and labels of (1 - index)^(1 - gamma), where delta weighs false negatives and
    1 - delta false positives; exponents and delta as in the authors' code. With `asymmetric`, gamma eases the
    background's focal part and sharpens the labels' Tversky part only. Overlapping labels are problems of two classes
    each. gamma = 0 gives delta-weighed cross-entropy and the Tversky loss.
    """

    name: Literal["unified_focal"] = "unified_focal"
    weight: float = Field(0.5, ge=0, le=1)
    delta: float = Field(0.6, ge=0, le=1)
    gamma: float = Field(0.5, ge=0, lt=1)
    asymmetric: bool = True
    batch: bool = False  # pools the Tversky part's sums over the batch, as in 'dice'
    smooth: float = Field(1e-5, gt=0)  # voxels

    def build(self, labels: LabelSet) -> nn.Module:
        from medseg.losses.unified_focal_module import UnifiedFocalLoss

        return UnifiedFocalLoss(labels, self)
