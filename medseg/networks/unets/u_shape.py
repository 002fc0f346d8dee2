"""The settings that U-shaped networks share: stages, strides, kernels, supervision, and attention anywhere."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field, Strict, model_validator

from medseg.networks.attention import ATTENTIONS, AttentionConfig, placing_problem
from medseg.networks.base import NetworkConfig, PerAxis, PositiveInt, per_axis


class UShapedConfig(NetworkConfig):
    """Base of encoders and decoders joined by skips, stage by stage."""

    channels: tuple[PositiveInt, ...] = Field((32, 64, 128, 256), min_length=2)  # one a stage, finest first
    strides: tuple[PerAxis, ...] | None = None  # from each stage to the next: one fewer than channels; default 2
    kernel_sizes: tuple[PerAxis, ...] | None = None  # one a stage, odd; default 3
    dropout: float = Field(0.0, ge=0, lt=1)  # of whole channels, after each normalisation (Tompson et al., CVPR 2015)
    deep_supervision: Annotated[int, Strict()] = Field(0, ge=0)  # heads below the finest; Isensee et al. use them all
    attention: tuple[Annotated[AttentionConfig, ATTENTIONS], ...] = ()
    checkpointing: bool = False  # recompute stages in the backward pass: less memory, about a third more time

    @model_validator(mode="after")
    def _stages_fit(self) -> UShapedConfig:
        stages = len(self.channels)
        for key, values, count in (("strides", self.strides, stages - 1), ("kernel_sizes", self.kernel_sizes, stages)):
            if values is not None and len(values) != count:
                raise ValueError(f"{key} has {len(values)} entries, but {stages} channels need {count}")
            if any(len(per_axis(value, self.spatial_dims)) != self.spatial_dims for value in values or ()):
                raise ValueError(f"{key} {list(values or ())}: give one number, or {self.spatial_dims}, for each entry")
        if any(size % 2 == 0 for kernel in self.stage_kernels() for size in kernel):
            raise ValueError("kernel_sizes must be odd, so that a convolution keeps the grid")
        if self.deep_supervision > stages - 2:
            raise ValueError(
                f"deep_supervision is {self.deep_supervision}, but {stages} stages allow 0 to {stages - 2}"
            )
        problem = placing_problem(self.attention)
        if problem is not None:
            raise ValueError(problem)
        return self

    def stage_strides(self) -> list[tuple[int, ...]]:
        """The stride into each stage, per axis; 1 into the first."""
        steps = self.strides or (2,) * (len(self.channels) - 1)
        return [per_axis(step, self.spatial_dims) for step in (1, *steps)]

    def stage_kernels(self) -> list[tuple[int, ...]]:
        """The kernel size of each stage, per axis."""
        return [per_axis(size, self.spatial_dims) for size in self.kernel_sizes or (3,) * len(self.channels)]

    def divisor(self) -> tuple[int, ...]:
        return tuple(math.prod(steps) for steps in zip(*self.stage_strides(), strict=True))
