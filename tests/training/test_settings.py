"""The plan of a run: schedules, budgets, and what is refused."""

import math
from collections.abc import Callable
from typing import get_args

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from medseg.config import validate
from medseg.errors import ConfigError
from medseg.training.budget import Costs, Forecast, Needs, steps_within
from medseg.training.optimizers import OPTIMIZERS, TorchOptimizer
from medseg.training.schedules import SCHEDULES, OneCycle, Plateau, Polynomial, ScheduleConfig, Steps, WarmupCosine
from medseg.training.settings import TrainingSettings


def test_warmup_rises_and_cosine_falls_to_zero() -> None:
    factors = [WarmupCosine(warmup=0.1).factor(step, 100) for step in range(100)]
    assert factors[:10] == sorted(factors[:10])
    assert factors[10] == pytest.approx(1.0)
    assert factors[55] == pytest.approx(0.5)
    assert factors[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))


def test_polynomial_is_the_papers_formula() -> None:
    assert Polynomial(power=0.9).factor(25, 100) == pytest.approx(0.75**0.9)


def torch_rates(
    make: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler], steps: int
) -> list[float]:
    """The rates that torch's own schedule gives, from a highest of 1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, rates = make(optimizer), list[float]()
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        (OneCycle(rise=0.3), lambda opt: torch.optim.lr_scheduler.OneCycleLR(opt, 1.0, total_steps=50)),
        (
            OneCycle(rise=0.1, begin=10, end=100),
            lambda opt: torch.optim.lr_scheduler.OneCycleLR(
                opt, 1.0, total_steps=50, pct_start=0.1, div_factor=10, final_div_factor=100
            ),
        ),
        (
            Steps(at=(0.2, 0.5), fall=0.3),
            lambda opt: torch.optim.lr_scheduler.MultiStepLR(opt, milestones=[10, 25], gamma=0.3),
        ),
        (Polynomial(power=2.0), lambda opt: torch.optim.lr_scheduler.PolynomialLR(opt, 50, power=2.0)),
        (WarmupCosine(warmup=0.0), lambda opt: torch.optim.lr_scheduler.CosineAnnealingLR(opt, 50)),
    ],
    ids=lambda value: value.name if isinstance(value, ScheduleConfig) else "",
)
def test_schedules_are_those_of_torch(
    schedule: ScheduleConfig, make: Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LRScheduler]
) -> None:
    assert [schedule.factor(step, 50) for step in range(50)] == pytest.approx(torch_rates(make, 50), abs=1e-9)


def test_a_plateau_is_so_many_validations_without_a_better_one() -> None:
    schedule = Plateau(patience=2, fall=0.5)
    scores = [0.5, 0.5, 0.4, 0.6, 0.6, 0.6, 0.5, 0.5]
    falls = [schedule.factor(0, 1, scores[:count]) for count in range(len(scores) + 1)]
    assert falls == [1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25, 0.125]


@pytest.mark.parametrize("name", OPTIMIZERS.names())
def test_every_optimizer_finds_the_lowest_point_of_a_bowl(name: str) -> None:
    settings = {"type": "NAdam"} if name == "torch" else {}
    config = validate(OPTIMIZERS[name], {"name": name, "learning_rate": 0.05, "weight_decay": 0.0, **settings}, name)
    place = nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer = config.build([place])
    for _ in range(300):
        optimizer.zero_grad()
        (place - torch.tensor([3.0, 4.0])).square().sum().backward()
        optimizer.step()
    assert place.tolist() == pytest.approx([3, 4], abs=0.2)


@pytest.mark.parametrize("kind", get_args(TorchOptimizer.model_fields["type"].annotation))
def test_every_optimizer_of_torch_is_built_and_steps(kind: str) -> None:
    config = validate(TorchOptimizer, {"type": kind, "learning_rate": 0.1}, kind)
    place = nn.Parameter(torch.ones(3, 3))
    optimizer = config.build([place])
    place.square().sum().backward()
    optimizer.step()
    assert not torch.equal(place, torch.ones(3, 3))


def test_an_option_that_torch_does_not_know_is_refused() -> None:
    config = validate(TorchOptimizer, {"type": "RAdam", "options": {"momentum": 0.9}}, "optimizer")
    with pytest.raises(ConfigError, match=r"training.optimizer: torch.optim.RAdam refuses .*momentum"):
        config.build([nn.Parameter(torch.ones(1))])


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


def test_a_forecast_counts_steps_and_the_validations_between_them() -> None:
    forecast = Forecast.of(1000, Costs(elapsed_s=60, step_s=0.5, validation_s=50), 100, Needs(5, 7))
    assert (forecast.seconds, forecast.memory_bytes, forecast.disk_bytes) == (1000, 5, 7)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "either total_steps or max_minutes"),
        ({"total_steps": 5, "max_minutes": 1}, "either total_steps or max_minutes"),
        ({"total_steps": 5, "patience": 2}, "validate_every_epochs"),
        ({"total_steps": 5, "keep": "best"}, "validate_every_epochs"),
        ({"total_steps": 5, "schedule": {"name": "plateau"}}, "validate_every_epochs"),
        ({"total_steps": 5, "schedule": {"name": "steps", "at": [0.7, 0.5]}}, "must rise"),
        ({"total_steps": 5, "batch_size": 2, "accumulate": 3}, "accumulate 3"),
        ({"total_steps": 5, "sharded": True, "channels_last": True}, "set channels_last to false"),
        ({"total_steps": 5, "rare_labels": 0.6, "hard_cases": 0.5}, "more than all draws"),
        ({"total_steps": 5, "sharded": True, "ema": 0.99}, "ema 0.99 needs the whole weights"),
    ],
)
def test_contradictions_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TrainingSettings.model_validate(settings)
