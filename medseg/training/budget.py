"""Turns minutes into a number of steps before the first one is taken, so that the clock never decides afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True)
class Costs:
    """Seconds measured on this machine: already spent, for one step, for one whole validation."""

    elapsed_s: float
    step_s: float
    validation_s: float


@dataclass(frozen=True)
class Forecast:
    """What a run will need, from a few timed steps; seconds count from when it was made."""

    total_steps: int
    step_s: float
    seconds: float  # steps and the validations between them
    memory_bytes: int  # the most so far: of this process, or on CUDA of what torch holds there
    disk_bytes: int  # checkpoints and model

    @classmethod
    def of(cls, total_steps: int, costs: Costs, steps_per_validation: int | None, needs: Needs) -> Forecast:
        """For so many steps."""
        validations = total_steps // steps_per_validation if steps_per_validation else 0
        seconds = total_steps * costs.step_s + validations * costs.validation_s
        return cls(total_steps, costs.step_s, seconds, needs.memory_bytes, needs.disk_bytes)


class Needs(NamedTuple):
    """What timed steps showed beside their time."""

    memory_bytes: int
    disk_bytes: int


def steps_within(minutes: float, costs: Costs, steps_per_validation: int | None) -> int:
    """The steps, validations between them included, that end `minutes` after the process began; at least one."""
    left_s = minutes * 60.0 - costs.elapsed_s
    each_s = costs.step_s + (costs.validation_s / steps_per_validation if steps_per_validation else 0.0)
    return max(1, int(left_s / each_s))
