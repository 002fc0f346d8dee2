"""Goes through costs and trainings one by one, and says how far it is and how long the rest may take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from medseg.experiment import ExperimentConfig
from pipelines.benchmark.costing import Phase
from pipelines.benchmark.work import Result, Workshop
from pipelines.console import Console, duration

_AROUND_S = 30.0  # start and scoring of a training, until some have been seen


@dataclass(frozen=True)
class Job:
    """A training to be done, and the seconds that its steps should take."""

    experiment: ExperimentConfig
    seconds: float


@dataclass(frozen=True)
class Agenda:
    """The work of a benchmark, done in order; Ctrl-C keeps what is done."""

    workshop: Workshop
    console: Console

    def cost(self, experiment: ExperimentConfig, phase: Phase, place: str) -> Result:
        """Measures, or takes what was measured before."""
        self.console.say(f"cost {place}: {experiment.name}, {phase}")
        result = self.workshop.cost(experiment, phase)
        self._tell(result)
        return result

    def train(self, jobs: Sequence[Job]) -> list[Result]:
        """A result for each job, in order; a training that fails does not stop the rest."""
        left = [job for job in jobs if self.workshop.kept(job.experiment) is None]
        if len(left) < len(jobs):
            self.console.say(f"{len(jobs) - len(left)} of {len(jobs)} trainings were done before and are kept")
        results, around = [], list[float]()
        for number, job in enumerate(jobs, start=1):
            ahead = [other.seconds + (fmean(around) if around else _AROUND_S) for other in left]
            kept = self.workshop.kept(job.experiment)
            if kept is None:
                named = f"{job.experiment.name}, {length_of(job.experiment)}, seed {job.experiment.seed}"
                self.console.say(f"training {number}/{len(jobs)}: {named}; about {duration(sum(ahead))} left")
            result = kept or self._patiently(job.experiment, len(left))
            if kept is None:
                left.remove(job)
                around.append(max(0.0, result.seconds - job.seconds))
                self._tell(result)
            results.append(result)
        return results

    def _patiently(self, experiment: ExperimentConfig, left: int) -> Result:
        try:
            return self.workshop.train(experiment)
        except KeyboardInterrupt:
            self.console.say(f"stopped, trainings left: {left}; the same command goes on from {self.workshop.output}")
            raise

    def _tell(self, result: Result) -> None:
        answer = result.answer or {}
        if result.error is not None:
            self.console.say(f"  failed: {result.error}")
        elif answer.get("dice") is not None:
            steps = f" after {answer['steps']} steps" if "steps" in answer else ""
            self.console.say(f"  Dice {answer['dice']:.3f}{steps}, {duration(result.seconds)} in all")


def length_of(experiment: ExperimentConfig) -> str:
    """The budget of a training, for people."""
    plan = experiment.training
    return f"{plan.max_minutes:g} minutes" if plan.max_minutes is not None else f"{plan.total_steps} steps"
