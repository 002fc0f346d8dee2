"""The config of a weighted sum of losses, for combinations that no single name covers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from medseg.config import Settings
from medseg.labels import LabelSet
from medseg.losses.base import LossConfig
from medseg.losses.terms import TERMS

if TYPE_CHECKING:
    from torch import nn


class Term(Settings):
    """One loss of a sum and its weight."""

    weight: float = Field(1.0, gt=0)
    loss: Annotated[LossConfig, TERMS]


class SumConfig(LossConfig):
    """Sum of weight x loss over `terms`, for instance Tversky + 0.5 focal; a sum has no sums among its terms."""

    name: Literal["sum"] = "sum"
    terms: tuple[Term, ...] = Field(min_length=1)

    def build(self, labels: LabelSet) -> nn.Module:
        from medseg.losses.sum_module import WeightedSum

        return WeightedSum([term.loss.build(labels) for term in self.terms], [term.weight for term in self.terms])
