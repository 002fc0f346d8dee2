"""The cross-entropy's config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from medseg.labels import LabelSet
from medseg.losses.base import LossConfig

if TYPE_CHECKING:
    from torch import nn


class CrossEntropyConfig(LossConfig):
    """Mean of -log p(truth) over the voxels that count; for overlapping labels binary, over voxels and labels."""

    name: Literal["cross_entropy"] = "cross_entropy"

    def build(self, labels: LabelSet) -> nn.Module:
        from medseg.losses.cross_entropy_module import FocalLoss

        return FocalLoss(labels, gamma=0.0, alpha=None)
