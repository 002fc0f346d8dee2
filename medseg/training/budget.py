"""Turns minutes into a number of steps before the first one is taken, so that the clock never decides afterwards."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Costs:
    """Seconds measured on this machine: already spent, for one step, for one whole validation."""

    elapsed_s: float
    step_s: float
    validation_s: float


def steps_within(minutes: float, costs: Costs, steps_per_validation: int | None) -> int:
    """The steps, validations between them included, that end `minutes` after the process began; at least one."""
    left_s = minutes * 60.0 - costs.elapsed_s
    each_s = costs.step_s + (costs.validation_s / steps_per_validation if steps_per_validation else 0.0)
    return max(1, int(left_s / each_s))
