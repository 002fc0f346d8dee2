"""Does the work of a benchmark piece by piece, each in a process of its own, and keeps it: a stopped one goes on."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from medseg.data.download import open_manifest
from medseg.data.manifest import read_manifest
from medseg.errors import MedsegError, WriteError
from medseg.evaluation.writing import SCORES
from medseg.experiment import ExperimentConfig
from medseg.io.atomic import atomic_write_text
from pipelines.benchmark.costing import Phase
from pipelines.benchmark.results import Result, described, foreground_dice, read_result, this_machine, write_result
from pipelines.children import ChildError, Medseg, medseg
from pipelines.console import Console, duration
from pipelines.locations import find_manifest, output_folder
from pipelines.stopping import patient_signals
from pipelines.study import cache_folder

_NO_MATTER = {"name", "description", "tracking"}  # what a result does not depend on
_AROUND_S = 30.0  # start and scoring of a training, until some have been seen


@dataclass(frozen=True)
class Job:
    """A training to be done, and the seconds that its steps should take."""

    experiment: ExperimentConfig
    seconds: float


@dataclass(frozen=True)
class Work:
    """A benchmark's folder, and what all its commands have in common; Ctrl-C keeps what is done."""

    output: Path
    data_root: Path | None
    device: str  # as torch calls it, never auto
    machine: Mapping[str, Any]
    medseg: Medseg = medseg
    console: Console = field(default_factory=Console)
    _data: dict[str, str] = field(default_factory=dict)  # manifest -> identity, each read once

    @classmethod
    def on(cls, device: str, output: Path, data_root: Path | None) -> Work:
        """Work on a device of this machine. Says how much of the folder is of another one and cannot be used."""
        from medseg.devices import choose_device

        chosen = str(choose_device(device))
        work = cls(output, data_root, chosen, this_machine(chosen))
        work.tell_of_others()
        return work

    def tell_of_others(self) -> None:
        """One line on the results in the folder that other machines or versions have left, where there are any."""
        found = [read_result(path) for path in sorted((self.output / "results").glob("*.json"))]
        others = [result.machine for result in found if result is not None and result.machine != self.machine]
        if others:
            where = "; ".join(sorted({described(machine) for machine in others}))
            self.console.say(
                f"not used: {len(others)} results in {self.output} of another machine or version ({where})"
            )

    def cost(self, experiment: ExperimentConfig, phase: Phase, place: str) -> Result:
        """What the experiment's network costs in one phase."""
        self.console.say(f"cost {place}: {experiment.name}, {phase}")
        arguments = ["benchmark", "cost", str(self._written(experiment)), "--phase", phase]
        return self._tell(self._do(experiment, phase, arguments))

    def blind(self, experiment: ExperimentConfig) -> Result:
        """The Dice of a prediction that never looks at the image, on the experiment's validation cases."""
        self.console.say("a prediction that never looks at the image")
        arguments = ["benchmark", "blind", str(self._written(experiment)), *self._root()]
        return self._tell(self._do(experiment, "blind", arguments))

    def train(self, jobs: Sequence[Job]) -> list[Result]:
        """A result for each job, in order; a training that fails does not stop the rest."""
        left = [job for job in jobs if self.kept(job.experiment) is None]
        if len(left) < len(jobs):
            self.console.say(f"{len(jobs) - len(left)} of {len(jobs)} trainings were done before and are kept")
        results, around = [], list[float]()
        for number, job in enumerate(jobs, start=1):
            result = self.kept(job.experiment)
            if result is None:
                ahead = sum(other.seconds + (fmean(around) if around else _AROUND_S) for other in left)
                named = f"{job.experiment.name}, {length_of(job.experiment)}, seed {job.experiment.seed}"
                self.console.say(f"training {number}/{len(jobs)}: {named}; about {duration(ahead)} left")
                result = self._tell(self._train(job.experiment, len(left)))
                left.remove(job)
                around.append(max(0.0, result.seconds - job.seconds))
            results.append(result)
        return results

    def evaluate(self, experiment: ExperimentConfig, trained: Result, assignments: Sequence[str]) -> Result:
        """`medseg evaluate` on the run of a training, used as `experiment` says and `assignments` tell the command."""
        if trained.answer is None:
            return replace(trained, title=experiment.name, error=f"no weights: {trained.error}")
        of = {key: trained.answer[key] for key in ("run", "weights_sha256")}
        goal = ["--output", str(self.output / "evaluations" / self.key(experiment, "evaluate", of)), *self._root()]
        settings = [part for assignment in assignments for part in ("--set", assignment)]
        arguments = ["evaluate", str(self.output / trained.answer["run"]), *settings, *goal]
        precision = {"precision": trained.answer.get("precision")}
        return self._tell(
            self._do(experiment, "evaluate", arguments, lambda found: {**_scored(found), **precision}, of)
        )

    def kept(
        self, experiment: ExperimentConfig, kind: str = "train", of: Mapping[str, str] | None = None
    ) -> Result | None:
        """The result of work that was done before; None for work not done, or that failed and is tried again."""
        result = read_result(self._path(experiment, kind, of))
        return None if result is None or result.error else result

    def key(self, experiment: ExperimentConfig, kind: str = "train", of: Mapping[str, str] | None = None) -> str:
        """The digest of all that a result depends on: seed and budget are in the experiment, `of` is what is used."""
        content = json.dumps({**self._facts(experiment, kind), "of": of}, sort_keys=True, default=str)
        return hashlib.sha256(content.encode()).hexdigest()[:16]

    def _facts(self, experiment: ExperimentConfig, kind: str) -> dict[str, Any]:
        """What a key is made of, and a kept result tells."""
        pinned = experiment.model_copy(update={"network": experiment.network.pinned()})
        return {
            "kind": kind,
            "device": self.device,
            "machine": dict(self.machine),
            "data": self._identity(experiment.data.manifest),
            "experiment": pinned.model_dump(mode="json", exclude=_NO_MATTER),
        }

    def _identity(self, manifest: str) -> str:
        """The manifest's digest; where it has none of some files, with the data root in which they lie."""
        if manifest not in self._data:
            folder, root = find_manifest(manifest), self.data_root
            opened = read_manifest(folder, root) if root else open_manifest(folder, None, cache_folder())[0]
            is_whole = all(digest for case in opened.cases for _, digest in case.files)
            place = "" if is_whole or root is None else f" in {root.resolve()}"
            self._data[manifest] = opened.digest + place
        return self._data[manifest]

    def _train(self, experiment: ExperimentConfig, left: int) -> Result:
        """`medseg train` on the experiment: its run, steps and the Dice of each validation case."""
        runs = ["--output", str(self.output / "runs" / self.key(experiment)), *self._root()]
        precision = {"precision": self._precision(experiment)}
        arguments = ["train", str(self._written(experiment)), *runs]
        try:
            return self._do(experiment, "train", arguments, lambda answer: {**self._trained(answer), **precision})
        except KeyboardInterrupt:
            left -= self.kept(experiment) is not None
            self.console.say(f"stopped, trainings left: {left}; the same command goes on from {self.output}")
            raise

    def _do(
        self,
        experiment: ExperimentConfig,
        kind: str,
        arguments: Sequence[str],
        read: Callable[[dict[str, Any]], dict[str, Any]] = dict,
        of: Mapping[str, str] | None = None,
    ) -> Result:
        """Starts a command unless its result is kept; a failure is a result too.

        A command that ends before it hears of Ctrl-C is kept, and KeyboardInterrupt raised after that.
        """
        found = self.kept(experiment, kind, of)
        if found is not None:
            return found
        path, begin, answer, error = self._path(experiment, kind, of), time.monotonic(), None, None
        output_folder(path.parent)
        flags = [] if kind == "blind" else ["--device", self.device]
        with patient_signals() as is_asked:
            try:
                answer = read(self.medseg([*arguments, *flags], path.with_suffix(".log"), is_asked))
            except WriteError:
                raise
            except MedsegError as failure:
                error = str(failure)
            result = Result(experiment.name, answer, error, time.monotonic() - begin, self.machine)
            write_result(path, result, **self._facts(experiment, kind), of=of)
            if is_asked():
                raise KeyboardInterrupt
        return result

    def _written(self, experiment: ExperimentConfig) -> Path:
        """The experiment as a file that a person can train, too."""
        path = output_folder(self.output / "experiments") / f"{experiment.name}-{self.key(experiment)}.yaml"
        return atomic_write_text(path, yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False))

    def _path(self, experiment: ExperimentConfig, kind: str, of: Mapping[str, str] | None) -> Path:
        return self.output / "results" / f"{experiment.name}-{kind}-{self.key(experiment, kind, of)}.json"

    def _trained(self, answer: dict[str, Any]) -> dict[str, Any]:
        """What is kept of a training. Raises ChildError for one that scored nothing."""
        if "evaluation" not in answer:
            raise ChildError("trained, but scored no case; set data.fold to a fold that validates")
        run = Path(os.path.relpath(answer["run"], self.output)).as_posix()  # so that the folder can be moved
        kept = {key: answer[key] for key in ("steps", "weights_sha256")}
        return {"run": run, **kept, **_scored(answer["evaluation"])}

    def _precision(self, experiment: ExperimentConfig) -> str:
        """What the device's arithmetic is in training."""
        import torch

        from medseg.devices import choose_precision

        return str(choose_precision(experiment.training.precision, torch.device(self.device))).removeprefix("torch.")

    def _root(self) -> list[str]:
        return [] if self.data_root is None else ["--data-root", str(self.data_root)]

    def _tell(self, result: Result) -> Result:
        answer = result.answer or {}
        if result.error is not None:
            self.console.say(f"  failed: {result.error}")
        elif answer.get("dice") is not None:
            steps = f" after {answer['steps']} steps" if "steps" in answer else ""
            self.console.say(f"  Dice {answer['dice']:.3f}{steps}, {duration(result.seconds)} in all")
        return result


def length_of(experiment: ExperimentConfig) -> str:
    """The budget of a training, for people."""
    plan = experiment.training
    return f"{plan.max_minutes:g} minutes" if plan.max_minutes is not None else f"{plan.total_steps} steps"


def _scored(evaluation: dict[str, Any]) -> dict[str, Any]:
    """What is kept of scores: their mean, each case's foreground Dice, and the cases that could not be scored.

    Raises ChildError where every case failed.
    """
    failed = [one["case"] for one in evaluation["cases"]["failed"]]
    cases = foreground_dice(Path(evaluation["folder"]) / SCORES)
    if not cases:
        raise ChildError(f"none of the {len(failed)} cases could be scored; see {evaluation['folder']}")
    return {"dice": evaluation["mean_foreground_dice"], "cases": cases, "failed": failed}
