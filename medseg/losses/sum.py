"""The config of a weighted sum of losses, for combinations that no single name covers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from medseg.config import Settings
from medseg.labels import LabelSet
from medseg.losses.base import LossConfig, Part
from medseg.losses.ramp import Ramp
from medseg.losses.terms import TERMS
from medseg.losses.voxel_counts import VoxelCounts

if TYPE_CHECKING:
    from torch import nn


class Term(Settings):
    """One loss of a sum, its weight, and the factor on it that follows training: constant unless `ramp` is given."""

    weight: float = Field(1.0, gt=0)
    ramp: Ramp | None = None
    loss: Annotated[LossConfig, TERMS]

    def weight_at(self, progress: float) -> float:
        """The weight when the share `progress` of the training steps, 0 to 1, is done."""
        return self.weight * (1.0 if self.ramp is None else self.ramp.factor(progress))


class SumConfig(LossConfig):
    """Sum of weight x loss over `terms`, for instance Dice + boundary, the latter ramping up while the network trains.

    A sum has no sums among its terms.
    """

    name: Literal["sum"] = "sum"
    terms: tuple[Term, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _weighs_something_throughout(self) -> SumConfig:
        ramps = [term.ramp for term in self.terms if term.ramp is not None]
        for progress in sorted({0.0, 1.0, *(ramp.start for ramp in ramps), *(ramp.end for ramp in ramps)}):
            if not any(term.weight_at(progress) for term in self.terms):
                raise ValueError(f"every weight is 0 at {progress:g} of training, where nothing would be learned")
        return self

    @property
    def needs_counts(self) -> bool:
        return any(term.loss.needs_counts for term in self.terms)

    def weighed(self, counts: VoxelCounts) -> Self:
        terms = tuple(term.model_copy(update={"loss": term.loss.weighed(counts)}) for term in self.terms)
        return self.model_copy(update={"terms": terms})

    def check_labels(self, labels: LabelSet) -> None:
        for term in self.terms:
            term.loss.check_labels(labels)

    def parts(self) -> tuple[Part, ...]:
        return tuple(Part(term.weight_at, term.loss) for term in self.terms)

    def build(self, labels: LabelSet) -> nn.Module:
        """The sum with its weights as they are at the end of training."""
        from medseg.losses.sum_module import WeightedSum

        return WeightedSum(
            [term.loss.build(labels) for term in self.terms], [term.weight_at(1.0) for term in self.terms]
        )
