"""The focal loss's config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from medseg.labels import LabelSet
from medseg.losses.base import LossConfig

if TYPE_CHECKING:
    from torch import nn


class FocalConfig(LossConfig):
    """Cross-entropy with each voxel weighed by (1 - p)^gamma (Lin et al., ICCV 2017): easy voxels count less.

    p is the probability of the truth; gamma = 0 is the cross-entropy. `alpha` also weighs voxels of a label by alpha
    and of the background by 1 - alpha. The mean is over voxels (and overlapping labels), not over weights.
    """

    name: Literal["focal"] = "focal"
    gamma: float = Field(2.0, ge=0)
    alpha: float | None = Field(None, ge=0, le=1)

    def build(self, labels: LabelSet) -> nn.Module:
        from medseg.losses.cross_entropy_module import FocalLoss

        return FocalLoss(labels, gamma=self.gamma, alpha=self.alpha)
