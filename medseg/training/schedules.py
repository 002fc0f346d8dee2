"""How the learning rate goes over a run, by name: a function of the step and the validations, so without a state."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from medseg.config import Catalogue, NamedSettings

Share = Annotated[float, Field(ge=0, lt=1)]


class ScheduleConfig(NamedSettings):
    """The share of the learning rate that each step takes."""

    needs_validation: ClassVar[bool] = False  # whether it asks for scores

    @abstractmethod
    def factor(self, step: int, total: int, scores: Sequence[float] = ()) -> float:
        """Between 0 and 1, for step 0 to total - 1; `scores` are those of the validations so far, the latest last."""


class WarmupCosine(ScheduleConfig):
    """Rises linearly over a share of the run, then falls to zero along a cosine (Loshchilov and Hutter, ICLR 2017)."""

    name: Literal["warmup_cosine"] = "warmup_cosine"
    warmup: Share = 0.1

    def factor(self, step: int, total: int, scores: Sequence[float] = ()) -> float:
        rising = self.warmup * total
        if step < rising:
            return (step + 1) / (rising + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1.0, total - rising)))


class Polynomial(ScheduleConfig):
    """(1 - step / total) to a power (Chen et al., DeepLab, TPAMI 2018), after an optional linear rise."""

    name: Literal["polynomial"] = "polynomial"
    power: float = Field(default=0.9, gt=0)
    warmup: Share = 0.0

    def factor(self, step: int, total: int, scores: Sequence[float] = ()) -> float:
        rising = self.warmup * total
        if step < rising:
            return (step + 1) / (rising + 1)
        return float((1 - (step - rising) / (total - rising)) ** self.power)


class OneCycle(ScheduleConfig):
    """Half a cosine wave up from 1 / `begin`, another down to 1 / (`begin` x `end`) (Smith and Topin, 2018)."""

    name: Literal["one_cycle"] = "one_cycle"
    rise: Share = 0.3  # of the steps
    begin: float = Field(default=25.0, ge=1)
    end: float = Field(default=1e4, ge=1)

    def factor(self, step: int, total: int, scores: Sequence[float] = ()) -> float:
        top = self.rise * total - 1
        if step <= top:
            return _wave(1 / self.begin, 1.0, step / top if top else 1.0)
        left = total - 1 - max(top, 0)
        return _wave(1.0, 1 / (self.begin * self.end), (step - max(top, 0)) / left if left else 0.0)


class Steps(ScheduleConfig):
    """Falls by a factor at given shares of the run."""

    name: Literal["steps"] = "steps"
    at: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field((0.5, 0.75), min_length=1)
    fall: float = Field(default=0.1, gt=0, lt=1)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if list(self.at) != sorted(set(self.at)):
            raise ValueError(f"at {list(self.at)} must rise")
        return self

    def factor(self, step: int, total: int, scores: Sequence[float] = ()) -> float:
        return self.fall ** sum(step >= share * total for share in self.at)


class Plateau(ScheduleConfig):
    """Falls by a factor whenever so many validations in a row brought no better score."""

    needs_validation: ClassVar[bool] = True

    name: Literal["plateau"] = "plateau"
    patience: int = Field(default=5, ge=1)
    fall: float = Field(default=0.2, gt=0, lt=1)

    def factor(self, step: int, total: int, scores: Sequence[float] = ()) -> float:
        best, stale, falls = -math.inf, 0, 0
        for score in scores:
            best, stale = (score, 0) if score > best else (best, stale + 1)
            if stale == self.patience:
                stale, falls = 0, falls + 1
        return self.fall**falls


class Constant(ScheduleConfig):
    """The same rate throughout."""

    name: Literal["constant"] = "constant"

    def factor(self, step: int, total: int, scores: Sequence[float] = ()) -> float:
        return 1.0


def _wave(first: float, last: float, share: float) -> float:
    """From first to last along half a cosine wave."""
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * share))


SCHEDULES = Catalogue[ScheduleConfig](
    "schedules", ScheduleConfig, [WarmupCosine, Polynomial, OneCycle, Steps, Plateau, Constant]
)
