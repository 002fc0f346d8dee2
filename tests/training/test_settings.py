"""The plan of a run: schedules, budgets, and what is refused."""

import math

import pytest
from pydantic import ValidationError

from medseg.training.budget import Costs, steps_within
from medseg.training.settings import SCHEDULES, Polynomial, TrainingSettings, WarmupCosine


def test_warmup_rises_and_cosine_falls_to_zero() -> None:
    factors = [WarmupCosine(warmup=0.1).factor(step, 100) for step in range(100)]
    assert factors[:10] == sorted(factors[:10])
    assert factors[10] == pytest.approx(1.0)
    assert factors[55] == pytest.approx(0.5)
    assert factors[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))


def test_polynomial_is_the_papers_formula() -> None:
    assert Polynomial(power=0.9).factor(25, 100) == pytest.approx(0.75**0.9)


@pytest.mark.parametrize("name", SCHEDULES.names())
@pytest.mark.parametrize("total", [1, 2, 7, 100])
def test_every_schedule_stays_between_zero_and_one(name: str, total: int) -> None:
    schedule = SCHEDULES[name].model_validate({"name": name})
    factors = [schedule.factor(step, total) for step in range(total)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert factors[0] > 0


def test_a_budget_counts_what_is_spent_and_the_validations() -> None:
    assert steps_within(10, Costs(elapsed_s=60, step_s=0.5, validation_s=0), None) == 1080
    assert steps_within(10, Costs(elapsed_s=60, step_s=0.5, validation_s=50), 100) == 540
    assert steps_within(1, Costs(elapsed_s=600, step_s=0.5, validation_s=0), None) == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "either total_steps or max_minutes"),
        ({"total_steps": 5, "max_minutes": 1}, "either total_steps or max_minutes"),
        ({"total_steps": 5, "patience": 2}, "validate_every_epochs"),
        ({"total_steps": 5, "keep": "best"}, "validate_every_epochs"),
        ({"total_steps": 5, "batch_size": 2, "accumulate": 3}, "accumulate 3"),
    ],
)
def test_contradictions_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainingSettings.model_validate(settings)
