"""Where a benchmark keeps what it has done, one file a piece of work, so that a stopped one goes on where it was."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from medseg.errors import MedsegError, WriteError
from medseg.evaluation.writing import SCORES
from medseg.experiment import ExperimentConfig
from medseg.io.atomic import atomic_write_text
from pipelines.benchmark.children import ChildError, medseg
from pipelines.benchmark.costing import Phase
from pipelines.locations import output_folder

SCHEMA_VERSION = 1
_NO_MATTER = {"name", "description", "tracking"}  # what a result does not depend on
Medseg = Callable[[Sequence[str], Path], dict[str, Any]]


@dataclass(frozen=True)
class Result:
    """What came of one piece of work: an answer, or the error that it ended with."""

    title: str
    answer: dict[str, Any] | None
    error: str | None
    seconds: float  # the whole process, scoring included

    @property
    def cases(self) -> dict[str, float | None]:
        """Foreground Dice of each case; empty for work without scores."""
        return dict((self.answer or {}).get("cases", {}))


@dataclass(frozen=True)
class Workshop:
    """A benchmark's folder, and the flags that all its commands have in common."""

    output: Path
    data_root: Path | None = None
    device: str = "auto"
    medseg: Medseg = medseg

    def kept(self, experiment: ExperimentConfig, kind: str = "train") -> Result | None:
        """The result of work that was done before; None for work not done, or that failed and is tried again."""
        try:
            content = json.loads(self._path(experiment, kind).read_text(encoding="utf-8"))
            result = Result(content["title"], content["answer"], content["error"], content["seconds"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return None if result.error else result

    def train(self, experiment: ExperimentConfig) -> Result:
        """`medseg train` on the experiment: its run, steps and the Dice of each validation case."""
        runs = ["--output", str(self.output / "runs" / self.key(experiment)), *self._data()]
        return self._do(experiment, "train", ["train", str(self._written(experiment)), *runs], self._trained)

    def evaluate(self, experiment: ExperimentConfig, trained: Result, assignments: Sequence[str]) -> Result:
        """`medseg evaluate` on the run of a training, used as `experiment` says and `assignments` tell the command."""
        if trained.answer is None:
            return replace(trained, title=experiment.name, error=f"no weights: {trained.error}")
        goal = ["--output", str(self.output / "evaluations" / self.key(experiment)), *self._data()]
        settings = [part for assignment in assignments for part in ("--set", assignment)]
        arguments = ["evaluate", str(self.output / trained.answer["run"]), *settings, *goal]
        return self._do(experiment, "evaluate", arguments, _scored)

    def cost(self, experiment: ExperimentConfig, phase: Phase) -> Result:
        """What the experiment's network costs in one phase."""
        arguments = ["benchmark", "cost", str(self._written(experiment)), "--phase", phase]
        return self._do(experiment, phase, arguments, lambda answer: answer)

    def key(self, experiment: ExperimentConfig, kind: str = "train") -> str:
        """The digest of all that a result depends on but the data's files: seed and budget are in the experiment."""
        content = {
            "kind": kind,
            "device": self.device,
            "experiment": experiment.model_dump(mode="json", exclude=_NO_MATTER),
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def _do(
        self,
        experiment: ExperimentConfig,
        kind: str,
        arguments: Sequence[str],
        read: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> Result:
        """Starts a command unless its result is kept; a failure is a result too."""
        found = self.kept(experiment, kind)
        if found is not None:
            return found
        path, begin = self._path(experiment, kind), time.monotonic()
        output_folder(path.parent)
        answer, error = None, None
        try:
            answer = read(self.medseg([*arguments, "--device", self.device], path.with_suffix(".log")))
        except WriteError:
            raise
        except MedsegError as failure:
            error = str(failure)
        result = Result(experiment.name, answer, error, time.monotonic() - begin)
        content = {"schema_version": SCHEMA_VERSION, "kind": kind, **asdict(result)}
        content["experiment"] = experiment.model_dump(mode="json")
        atomic_write_text(path, json.dumps(content, indent=2) + "\n")
        return result

    def _written(self, experiment: ExperimentConfig) -> Path:
        """The experiment as a file that a person can train, too."""
        path = output_folder(self.output / "experiments") / f"{experiment.name}-{self.key(experiment)}.yaml"
        content = yaml.safe_dump(experiment.model_dump(mode="json"), sort_keys=False)
        return atomic_write_text(path, content)

    def _path(self, experiment: ExperimentConfig, kind: str) -> Path:
        return self.output / "results" / f"{experiment.name}-{kind}-{self.key(experiment, kind)}.json"

    def _trained(self, answer: dict[str, Any]) -> dict[str, Any]:
        """What is kept of a training. Raises ChildError for one that scored nothing."""
        if "evaluation" not in answer:
            raise ChildError("trained, but scored no case; set data.fold to a fold that validates")
        run = Path(os.path.relpath(answer["run"], self.output)).as_posix()  # so that the folder can be moved
        return {"run": run, "steps": answer["steps"], **_scored(answer["evaluation"])}

    def _data(self) -> list[str]:
        return [] if self.data_root is None else ["--data-root", str(self.data_root)]


def _scored(evaluation: dict[str, Any]) -> dict[str, Any]:
    """What is kept of scores: their mean, each case's foreground Dice, and the cases that could not be scored."""
    failed = [one["case"] for one in evaluation["cases"]["failed"]]
    cases = foreground_dice(Path(evaluation["folder"]) / SCORES)
    return {"dice": evaluation["mean_foreground_dice"], "cases": cases, "failed": failed}


def foreground_dice(scores: Path) -> dict[str, float | None]:
    """Each case's mean Dice over the labels that have one, from scores.csv; regions and failed cases left out."""
    found: dict[str, list[float]] = {}
    with scores.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["kind"] == "label":
                found.setdefault(row["case"], []).extend([float(row["dice"])] if row["dice"] else [])
    return {case: fmean(dice) if dice else None for case, dice in found.items()}
