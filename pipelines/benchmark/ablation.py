"""`medseg benchmark ablation`: a plain recipe, to which one part after another is added, and what each adds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from medseg.experiment import ExperimentConfig
from pipelines.benchmark.ladder import Variant, read_ladder, variants
from pipelines.benchmark.results import Result, one_machine
from pipelines.benchmark.stages import cases_of_all, fastest_step_s, lasting, stepping
from pipelines.benchmark.tables import (
    INTERVALS,
    Content,
    blind_line,
    cases_line,
    dice_cell,
    dice_content,
    flat,
    gain_of,
    head_line,
    interval,
    markdown,
    publish,
    refuse_nothing,
    shortened,
)
from pipelines.benchmark.work import Job, Work
from pipelines.locations import find_benchmark


@dataclass(frozen=True)
class AblationPlan:
    """Which ladder, on what, and how long each rung that needs weights of its own is trained."""

    dims: int = 3
    rungs: Path | None = None
    weights: Path | None = None
    minutes: float = 10.0
    steps: int = 0  # instead of minutes
    seeds: int = 3

    def budgeted(self, experiment: ExperimentConfig, step_s: float, seed: int) -> ExperimentConfig:
        """The experiment as long as planned where a step takes so long, under a seed so many after its own."""
        return stepping(experiment, self.steps, seed) if self.steps else lasting(experiment, self.minutes, step_s, seed)


@dataclass(frozen=True)
class RungResults:
    """A variant, whether it has weights of its own, and a result for each seed."""

    variant: Variant
    trained: bool
    results: list[Result]


def ablation(work: Work, plan: AblationPlan, assignments: Sequence[str]) -> dict[str, Any]:
    """Trains where a rung changes the training; where it changes the use of a model alone, the same weights serve."""
    found = list(variants(read_ladder(plan.rungs or find_benchmark("ablation")), plan.dims, plan.weights, assignments))
    is_new = [True, *(not one.only_uses(before) for before, one in pairwise(found))]
    own = [one for one, new in zip(found, is_new, strict=True) if new]
    places = [f"{number}/{len(own)}" for number in range(1, len(own) + 1)]
    steps_s = [
        fastest_step_s(work.cost(one.experiment, "training", place)) for one, place in zip(own, places, strict=True)
    ]
    trained = list(zip(steps_s, _train(work, own, steps_s, plan), strict=True))
    rungs, weights, step_s = list[RungResults](), list[Result](), 0.0
    for variant, new in zip(found, is_new, strict=True):
        if new:
            step_s, weights = trained.pop(0)
            results = weights
        else:
            work.console.say(f"other use of the same weights: {variant.label}")
            uses = [plan.budgeted(variant.experiment, step_s, seed) for seed in range(plan.seeds)]
            results = [work.evaluate(use, one, variant.use()) for use, one in zip(uses, weights, strict=True)]
        rungs.append(RungResults(variant, new, results))
    return _report(work, rungs, work.blind(found[0].experiment), plan)


def _train(work: Work, found: Sequence[Variant], steps_s: Sequence[float], plan: AblationPlan) -> list[list[Result]]:
    """A result for each variant and seed."""
    seconds = 0.0 if plan.steps else plan.minutes * 60
    jobs = [
        Job(plan.budgeted(one.experiment, step_s, seed), seconds)
        for one, step_s in zip(found, steps_s, strict=True)
        for seed in range(plan.seeds)
    ]
    results = work.train(jobs)
    return [results[start : start + plan.seeds] for start in range(0, len(results), plan.seeds)]


def _report(work: Work, rungs: Sequence[RungResults], blind: Result, plan: AblationPlan) -> dict[str, Any]:
    """Prints and writes the table; gives what `--json` prints. Raises MedsegError where every training failed."""
    among = cases_of_all([rung.results for rung in rungs])
    contents = [_content(rung, before, among) for before, rung in zip([None, *rungs[:-1]], rungs, strict=True)]
    every = [result for rung in rungs for result in rung.results]
    length = f"{plan.steps} steps" if plan.steps else f"the steps of {plan.minutes:g} minutes"
    head = head_line(every, [rungs[0].variant.experiment], plan.seeds)
    how = f"Dice and gains are means over cases and seeds; a gain is paired by case and seed. {INTERVALS}"
    parts = [f"{head} {plan.dims}D, {length} a training.", _table(contents), how, blind_line(blind, among)]
    page = "\n\n".join([*parts, *cases_line(among, contents)]) + "\n"
    facts = {"machine": one_machine(every), "plan": asdict(plan), "blind": blind.answer}
    result = publish(work, facts, contents, page)
    refuse_nothing([one for rung in rungs if rung.trained for one in rung.results], "training", work.output)
    return result


def _content(rung: RungResults, before: RungResults | None, among: Sequence[str]) -> dict[str, Any]:
    """The Dice of a rung, and what it gained over the rung before, as flat values."""
    gain = None if before is None else gain_of(before.results, rung.results, among)
    error = next((one.error for one in rung.results if one.error), None)
    facts = {"label": rung.variant.label, "trained": rung.trained}
    return {**facts, **dice_content(rung.results, among), **flat(gain, "gain"), "error": error}


def _table(contents: Sequence[Content]) -> str:
    headers = ["each on top of those above", "trained anew", "Dice [95 % interval]", "gain over the line above [95 %]"]
    rows = [
        [
            one["label"],
            "yes" if one["trained"] else "same weights",
            shortened(f"failed: {one['error']}") if one["error"] else dice_cell(one),
            interval(one, "gain", "+"),
        ]
        for one in contents
    ]
    return markdown(headers, rows)
