"""The two stages of a comparison: all for equal minutes and equal steps, then the best for longer and more seeds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from medseg.evaluation import RepeatedMean, common_cases, mean_of
from medseg.experiment import ExperimentConfig, changed
from pipelines.benchmark.costing import Phase
from pipelines.benchmark.entries import Entry
from pipelines.benchmark.results import Result
from pipelines.benchmark.work import Job, Work

Budget = Literal["minutes", "steps"]


@dataclass(frozen=True)
class Plan:
    """How long each is trained; 0 leaves a stage, or a column, out."""

    minutes: float = 2.0
    steps: int = 100
    best: int = 5
    best_minutes: float = 10.0
    best_seeds: int = 3
    only_cost: bool = False

    @property
    def ranking(self) -> Budget:
        """What all are ranked by, none by the other."""
        return "minutes" if self.minutes else "steps"

    @property
    def trains(self) -> bool:
        """Whether there is more to do than to measure costs."""
        return not self.only_cost and bool(self.minutes or self.steps)


@dataclass(frozen=True)
class Row:
    """What is known of one entry so far."""

    entry: Entry
    costs: dict[str, Result] = field(default_factory=dict)  # by phase
    trainings: dict[Budget, list[Result]] = field(default_factory=dict)  # one a seed

    def error(self, budget: Budget) -> str:
        """Why there is no Dice for a budget: the entry was skipped, or a training failed."""
        failed = (result.error for result in self.trainings.get(budget, []) if result.error)
        return self.entry.skipped or next(failed, "")

    @property
    def step_s(self) -> float:
        """Seconds of a training step as it was measured; 0 where it is not known."""
        return fastest_step_s(self.costs.get("training"))

    def cost_error(self, phase: str) -> str:
        """Why a cost is not known."""
        return (self.costs[phase].error or "") if phase in self.costs else ""


def cases_of_all(trainings: Sequence[Sequence[Result]]) -> list[str]:
    """The cases with a Dice in every training that did not fail: all means are over the same cases."""
    return common_cases([result.cases for results in trainings for result in results if not result.error])


def dice_of(results: Sequence[Result], among: Sequence[str]) -> RepeatedMean | None:
    """Mean foreground Dice over cases and seeds; None where a training is missing or failed."""
    return None if any(result.error for result in results) else mean_of([result.cases for result in results], among)


def first_stage(work: Work, entries: Sequence[Entry], plan: Plan, phases: Sequence[Phase]) -> list[Row]:
    """Costs, equal minutes and equal steps of every entry, the best first."""
    rows = [Row(entry) for entry in entries]
    for row in rows:
        if row.entry.skipped:
            work.console.say(f"skipped: {row.entry.label}: {row.entry.skipped}")
    able = [(row, row.entry.experiment) for row in rows if row.entry.experiment is not None]
    for number, (row, experiment) in enumerate(able, start=1):
        row.costs.update((phase, work.cost(experiment, phase, f"{number}/{len(able)}")) for phase in phases)
    if plan.trains:
        timed = [Job(lasting(one, plan.minutes, row.step_s), plan.minutes * 60) for row, one in able if plan.minutes]
        counted = [Job(stepping(one, plan.steps), row.step_s * plan.steps) for row, one in able if plan.steps]
        results = iter(work.train([*timed, *counted]))
        for row, _ in able if plan.minutes else []:
            row.trainings["minutes"] = [next(results)]
        for row, _ in able if plan.steps else []:
            row.trainings["steps"] = [next(results)]
    return [row for row, _ in _ranked(rows, plan.ranking)]


def second_stage(work: Work, rows: Sequence[Row], plan: Plan) -> list[Row]:
    """The best of all, in 2D or 3D, trained for longer and under several seeds, the best first."""
    again = [Row(row.entry, row.costs) for row, score in _ranked(rows, plan.ranking) if score >= 0][: plan.best]
    jobs = [
        Job(lasting(row.entry.experiment, plan.best_minutes, row.step_s, seed), plan.best_minutes * 60)
        for row in again
        for seed in range(plan.best_seeds)
        if row.entry.experiment is not None
    ]
    results = iter(work.train(jobs))
    for row in again:
        row.trainings["minutes"] = [next(results) for _ in range(plan.best_seeds)]
    return [row for row, _ in _ranked(again, "minutes")]


def fastest_step_s(cost: Result | None) -> float:
    """Seconds of the fastest training step that was measured, the one that other work on the machine held up least.

    0 where nothing was measured.
    """
    answer = (cost.answer if cost is not None else None) or {}
    return float(answer.get("fastest_s", 0.0)) * int(answer.get("batch", 0))


def lasting(experiment: ExperimentConfig, minutes: float, step_s: float, seed: int = 0) -> ExperimentConfig:
    """The experiment for the steps that so many minutes hold, under a seed so many after its own.

    The steps are counted before the training, which may then be held up without losing any. Where a step's time is not
    known (0), the training times its own.
    """
    if not step_s:
        return _budgeted(experiment, seed, total_steps=None, max_minutes=minutes)
    return stepping(experiment, max(1, int(minutes * 60 / step_s)), seed)


def stepping(experiment: ExperimentConfig, steps: int, seed: int = 0) -> ExperimentConfig:
    """The experiment for so many steps, under a seed so many after its own."""
    return _budgeted(experiment, seed, total_steps=steps, max_minutes=None)


def _budgeted(experiment: ExperimentConfig, seed: int, **length: Any) -> ExperimentConfig:
    """Nothing but the training shall take of the time: the record in MLflow is left out."""
    plan = [f"training.{key}={'null' if value is None else value}" for key, value in length.items()]
    return changed(experiment, [*plan, f"seed={experiment.seed + seed}", "tracking={name: none}"])


def _ranked(rows: Sequence[Row], budget: Budget) -> Iterator[tuple[Row, float]]:
    """Rows with their mean Dice, the best first; -1 where there is none, and those that were skipped last."""
    among = cases_of_all([row.trainings.get(budget, []) for row in rows])
    means = [dice_of(row.trainings.get(budget, []), among) for row in rows]
    scores = [-1.0 if mean is None else mean.value for mean in means]
    yield from sorted(
        zip(rows, scores, strict=True), key=lambda pair: (bool(pair[0].entry.skipped), -pair[1])
    )  # a stable sort: ties keep their order
