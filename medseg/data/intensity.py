"""How image values come to a common scale: constants measured on the whole source image, applied point by point."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar

import numpy as np
from pydantic import Field, model_validator

from medseg.config import Catalogue, NamedSettings
from medseg.errors import DataError

A = TypeVar("A")


@dataclass(frozen=True)
class Scale:
    """A point-wise map: `(clip(x, low, high) - shift) * factor`; works on arrays and tensors alike."""

    low: float
    high: float
    shift: float
    factor: float

    def __call__(self, values: A) -> A:
        return (values.clip(self.low, self.high) - self.shift) * self.factor  # type: ignore[attr-defined]


class IntensityConfig(NamedSettings):
    """One step for the channels named by index (all when empty)."""

    channels: tuple[Annotated[int, Field(ge=0)], ...] = ()

    @abstractmethod
    def measure(self, values: np.ndarray) -> Scale:
        """The map for one channel, from all its values on the source grid."""


class ZScore(IntensityConfig):
    """Zero mean, unit variance over the image; over non-zero voxels with `nonzero` (skull-stripped, padded images)."""

    name: Literal["z_score"] = "z_score"
    nonzero: bool = False

    def measure(self, values: np.ndarray) -> Scale:
        counted = values[values != 0] if self.nonzero and (values != 0).any() else values
        mean, deviation = float(counted.mean(dtype=np.float64)), float(counted.std(dtype=np.float64))
        return Scale(-np.inf, np.inf, mean, 1.0 / max(deviation, 1e-8))


class Window(IntensityConfig):
    """A window in the image's own unit (HU in CT) onto 0 to 1; values outside are clipped."""

    name: Literal["window"] = "window"
    low: float = -160.0
    high: float = 240.0

    @model_validator(mode="after")
    def _ordered(self) -> Window:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        return self

    def measure(self, values: np.ndarray) -> Scale:
        return Scale(self.low, self.high, self.low, 1.0 / (self.high - self.low))


class Percentile(IntensityConfig):
    """The values between two percentiles of the image onto 0 to 1; values outside are clipped."""

    name: Literal["percentile"] = "percentile"
    low: float = Field(default=0.5, ge=0, le=100)
    high: float = Field(default=99.5, ge=0, le=100)

    @model_validator(mode="after")
    def _ordered(self) -> Percentile:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} must be below high {self.high:g}")
        return self

    def measure(self, values: np.ndarray) -> Scale:
        low, high = (float(value) for value in np.percentile(values, (self.low, self.high)))
        return Scale(low, high, low, 1.0 / max(high - low, 1e-8))


INTENSITIES = Catalogue[IntensityConfig]("intensities", IntensityConfig, [ZScore, Window, Percentile])
Intensity = Annotated[IntensityConfig, INTENSITIES]


def measure_scales(image: np.ndarray, steps: Sequence[IntensityConfig]) -> list[list[Scale]]:
    """The maps of each channel of `(C, *S)`, in order; each step is measured on the result of the one before.

    Raises DataError where a step names a channel that the image does not have.
    """
    refuse_absent_channels(steps, len(image), "the image")
    scales: list[list[Scale]] = []
    for index, channel in enumerate(image):
        values, chain = channel.astype(np.float32), []
        for step in steps:
            if not step.channels or index in step.channels:
                chain.append(step.measure(values))
                values = chain[-1](values)
        scales.append(chain)
    return scales


def refuse_absent_channels(steps: Sequence[IntensityConfig], count: int, where: str) -> None:
    """Raises DataError where a step names a channel that an image of `count` channels does not have."""
    for position, step in enumerate(steps):
        absent = [index for index in step.channels if index >= count]
        if absent:
            raise DataError(
                f"{where}: intensity.{position} ({step.name}) names channels {absent}, but there are {count}, numbered "
                f"from 0; correct preprocessing.intensity.{position}.channels"
            )
