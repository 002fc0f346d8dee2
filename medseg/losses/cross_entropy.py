"""The cross-entropy's config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, model_validator

from medseg.errors import ConfigError
from medseg.labels import LabelSet
from medseg.losses.base import LossConfig
from medseg.losses.voxel_counts import VoxelCounts, effective_number, inverse_frequency

if TYPE_CHECKING:
    from torch import nn

NonNegative = Annotated[float, Field(ge=0)]


class CrossEntropyConfig(LossConfig):
    """Mean of -log p(truth) over the voxels that count; for overlapping labels binary, over voxels and labels.

    `weights`, one a network output (background first where labels are exclusive), make it a weighted mean: a voxel
    weighs as its truth says, in overlapping labels by its label's weight inside and by 1 outside. They are given, or
    follow from the voxels of the training cases: 'inverse_frequency', or the inverse 'effective_number' for `beta`
    (Cui et al., CVPR 2019), which lets voxels count as 1 / (1 - beta) at most.
    """

    name: Literal["cross_entropy"] = "cross_entropy"
    weights: Literal["inverse_frequency", "effective_number"] | tuple[NonNegative, ...] | None = None
    beta: float = Field(0.999999, ge=0, lt=1)  # of the effective number: up to a million voxels

    @model_validator(mode="after")
    def _weighs_something(self) -> CrossEntropyConfig:
        if isinstance(self.weights, tuple) and not any(self.weights):
            raise ValueError("weights are all 0, so that nothing would be learned; raise one")
        return self

    @property
    def needs_counts(self) -> bool:
        return isinstance(self.weights, str)

    def weighed(self, counts: VoxelCounts) -> Self:
        match self.weights:
            case "inverse_frequency":
                return self.model_copy(update={"weights": inverse_frequency(counts)})
            case "effective_number":
                return self.model_copy(update={"weights": effective_number(counts, self.beta)})
            case _:
                return self

    def check_labels(self, labels: LabelSet) -> None:
        if isinstance(self.weights, tuple) and len(self.weights) != labels.channels:
            outputs = ", ".join([*(["background"] if labels.is_exclusive else []), *labels.names])
            raise ConfigError(
                f"loss 'cross_entropy': weights {list(self.weights)} are {len(self.weights)} numbers for "
                f"{labels.channels} network outputs; give one for each of {outputs}"
            )

    def build(self, labels: LabelSet) -> nn.Module:
        from medseg.losses.cross_entropy_module import FocalLoss, WeightedCrossEntropy

        if self.weights is None:
            return FocalLoss(labels, gamma=0.0, alpha=None)
        if isinstance(self.weights, str):
            raise ConfigError(f"loss 'cross_entropy': weights {self.weights!r} need counts; build its `weighed` config")
        return WeightedCrossEntropy(labels, self.weights)
