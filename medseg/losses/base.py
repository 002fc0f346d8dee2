"""What every loss's config answers, so that training handles all losses, and all kinds of labels, alike."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from medseg.config import NamedSettings
from medseg.labels import LabelSet

if TYPE_CHECKING:
    from torch import nn


class LossConfig(NamedSettings):
    """Base of the losses: modules that map logits `(B, K, *S)` and a label to a scalar, computed in float32 or better.

    The label is `(B, 1, *S)` values or `(B, S, *S)` booleans, as the LabelSet says; the set alone decides between
    softmax and sigmoid and which voxels are ignored. Where every voxel is ignored the loss is 0, with a gradient of 0.
    """

    @abstractmethod
    def build(self, labels: LabelSet) -> nn.Module:
        """The loss for labels of this set, for one tensor of logits."""


def build_loss(config: LossConfig, labels: LabelSet) -> nn.Module:
    """The loss for a tensor of logits or, with deep supervision, for a list of them, the finest first."""
    from medseg.losses.deep_supervision_module import DeepSupervisionLoss

    return DeepSupervisionLoss(config.build(labels))
