"""What every loss's config answers, so that training handles all losses, and all kinds of labels, alike."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Self

from medseg.config import NamedSettings
from medseg.errors import ConfigError
from medseg.labels import LabelSet
from medseg.losses.voxel_counts import VoxelCounts

if TYPE_CHECKING:
    from torch import nn


class LossConfig(NamedSettings):
    """Base of the losses: modules that map logits `(B, K, *S)` and a label to a scalar, computed in float32 or better.

    The label is `(B, 1, *S)` values or `(B, S, *S)` booleans, as the LabelSet says; the set alone decides between
    softmax and sigmoid and which voxels are ignored. Where every voxel is ignored the loss is 0, with a gradient of 0.
    Each is 0 at a perfect and certain prediction.
    """

    @property
    def needs_counts(self) -> bool:
        """Whether it is built from its `weighed` config only, which is told the voxels of the training cases."""
        return False

    def weighed(self, counts: VoxelCounts) -> Self:
        """The config for training cases with so many voxels; another one only where the weights depend on them."""
        return self

    def check_labels(self, labels: LabelSet) -> None:
        """Raises ConfigError where the config cannot be meant for these labels."""
        return

    def parts(self) -> tuple[Part, ...]:
        """What training adds up: the loss itself with weight 1, and a sum its terms."""
        return (Part(_one, self),)

    @abstractmethod
    def build(self, labels: LabelSet) -> nn.Module:
        """The loss for labels of this set, for one tensor of logits."""


class Part(NamedTuple):
    """A loss and its weight as a function of progress: the share of the training steps that are done, 0 to 1."""

    weight: Callable[[float], float]
    loss: LossConfig


def _one(progress: float) -> float:
    return 1.0


def build_loss(config: LossConfig, labels: LabelSet) -> nn.Module:
    """The loss that training minimises: `loss(logits, label, progress)`, a scalar.

    Logits are a tensor or, with deep supervision, a list of them, the finest first. `progress` is the share of the
    training steps that are done (1 unless given): weights that ramp follow it. Raises ConfigError where config and
    labels do not fit, and where the config must be `weighed` first.
    """
    from medseg.losses.deep_supervision_module import DeepSupervisionLoss
    from medseg.losses.sum_module import ScheduledSum

    config.check_labels(labels)
    if config.needs_counts:
        raise ConfigError(f"loss {config.name!r} weighs by the voxels of its cases; build its `weighed` config")
    parts = config.parts()
    losses = [DeepSupervisionLoss(part.loss.build(labels)) for part in parts]
    return ScheduledSum(losses, [part.weight for part in parts])
