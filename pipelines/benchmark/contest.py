"""The two stages of a comparison: all for equal minutes and equal steps, then the best for longer and more seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from medseg.experiment import ExperimentConfig, changed
from pipelines.benchmark.agenda import Agenda, Job
from pipelines.benchmark.costing import PHASES, Phase
from pipelines.benchmark.entries import Entry
from pipelines.benchmark.statistics import Mean, mean_of
from pipelines.benchmark.work import Result


@dataclass(frozen=True)
class Plan:
    """How long each is trained; 0 leaves a stage, or a column, out."""

    minutes: float = 2.0
    steps: int = 100
    best: int = 5
    best_minutes: float = 10.0
    best_seeds: int = 3
    only_cost: bool = False


@dataclass
class Row:
    """What is known of one entry so far."""

    entry: Entry
    costs: dict[str, Result] = field(default_factory=dict)  # by phase
    in_minutes: list[Result] = field(default_factory=list)  # one a seed
    in_steps: list[Result] = field(default_factory=list)

    @property
    def score(self) -> float:
        """What entries are ranked by: mean Dice for equal minutes or, where there is none, for equal steps."""
        found = next((mean for mean in map(dice_of, (self.in_minutes, self.in_steps)) if mean is not None), None)
        return -1.0 if found is None else found.value

    @property
    def error(self) -> str:
        """The first thing that went wrong."""
        results = [*self.in_minutes, *self.in_steps, *self.costs.values()]
        return self.entry.skipped or next((result.error for result in results if result.error), "")


def dice_of(results: Sequence[Result]) -> Mean | None:
    """Mean foreground Dice over cases and seeds; None where a training is missing or failed."""
    return None if any(result.error for result in results) else mean_of([result.cases for result in results])


def first_stage(agenda: Agenda, entries: Sequence[Entry], plan: Plan, phases: Sequence[Phase] = PHASES) -> list[Row]:
    """Costs, equal minutes and equal steps of every entry, the best first."""
    rows = [Row(entry) for entry in entries]
    for row in rows:
        if row.entry.skipped:
            agenda.console.say(f"skipped: {row.entry.label}: {row.entry.skipped}")
    able = [(row, row.entry.experiment) for row in rows if row.entry.experiment is not None]
    for number, (row, experiment) in enumerate(able, start=1):
        row.costs = {phase: agenda.cost(experiment, phase, f"{number}/{len(able)}") for phase in phases}
    if not plan.only_cost:
        timed = [Job(lasting(experiment, plan.minutes), plan.minutes * 60) for _, experiment in able if plan.minutes]
        counted = [Job(stepping(one, plan.steps), _step_s(row) * plan.steps) for row, one in able if plan.steps]
        results = agenda.train([*timed, *counted])
        for (row, _), result in zip(able, results[: len(timed)], strict=bool(timed)):
            row.in_minutes = [result]
        for (row, _), result in zip(able, results[len(timed) :], strict=bool(counted)):
            row.in_steps = [result]
    return sorted(rows, key=lambda row: (bool(row.entry.skipped), -row.score))


def second_stage(agenda: Agenda, rows: Sequence[Row], plan: Plan) -> list[Row]:
    """The best of each number of axes, trained for longer and under several seeds, the best first."""
    again = []
    for dims in sorted({row.entry.dims for row in rows}):
        ranked = [row for row in rows if row.entry.dims == dims and row.score >= 0]
        again += [Row(row.entry, row.costs) for row in ranked[: plan.best]]
    jobs = [
        Job(lasting(row.entry.experiment, plan.best_minutes, seed), plan.best_minutes * 60)
        for row in again
        for seed in range(plan.best_seeds)
        if row.entry.experiment is not None
    ]
    results = iter(agenda.train(jobs))
    for row in again:
        row.in_minutes = [next(results) for _ in range(plan.best_seeds)]
    return sorted(again, key=lambda row: -row.score)


def lasting(experiment: ExperimentConfig, minutes: float, seed: int = 0) -> ExperimentConfig:
    """The experiment for so many minutes, under a seed so many after its own."""
    return _budgeted(experiment, seed, total_steps=None, max_minutes=minutes)


def stepping(experiment: ExperimentConfig, steps: int, seed: int = 0) -> ExperimentConfig:
    """The experiment for so many steps, under a seed so many after its own."""
    return _budgeted(experiment, seed, total_steps=steps, max_minutes=None)


def _budgeted(experiment: ExperimentConfig, seed: int, **length: Any) -> ExperimentConfig:
    """Nothing but the training shall take of the time: the record in MLflow is left out."""
    plan = [f"training.{key}={'null' if value is None else value}" for key, value in length.items()]
    return changed(experiment, [*plan, f"seed={experiment.seed + seed}", "tracking={name: none}"])


def _step_s(row: Row) -> float:
    """Seconds of a step, as its cost was measured."""
    answer = row.costs["training"].answer or {}
    return float(answer.get("seconds", 0.0)) * int(answer.get("batch", 0))
