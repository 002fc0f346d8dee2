"""The config of Dice plus cross-entropy, the loss to start with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from medseg.labels import LabelSet
from medseg.losses.base import LossConfig
from medseg.losses.cross_entropy import CrossEntropyConfig
from medseg.losses.dice import DiceConfig

if TYPE_CHECKING:
    from torch import nn


class DiceCEConfig(LossConfig):
    """dice_weight x soft Dice + cross_entropy_weight x cross-entropy (Isensee et al., Nature Methods 2021).

    The Dice part pools over the batch and leaves the background out, as theirs; its keys are those of 'dice'.
    """

    name: Literal["dice_ce"] = "dice_ce"
    dice_weight: float = Field(1.0, ge=0)
    cross_entropy_weight: float = Field(1.0, ge=0)
    batch: bool = True
    include_background: bool = False
    smooth: float = Field(1e-5, gt=0)  # voxels

    @model_validator(mode="after")
    def _weighs_something(self) -> DiceCEConfig:
        if self.dice_weight == self.cross_entropy_weight == 0:
            raise ValueError("dice_weight and cross_entropy_weight are both 0, so that nothing would be learned")
        return self

    def build(self, labels: LabelSet) -> nn.Module:
        from medseg.losses.sum_module import WeightedSum

        dice = DiceConfig(batch=self.batch, include_background=self.include_background, smooth=self.smooth)
        parts = [dice.build(labels), CrossEntropyConfig().build(labels)]
        return WeightedSum(parts, [self.dice_weight, self.cross_entropy_weight])
