"""`medseg cross-validate`: a model for each part of the cases that was left out, and what all of them say together."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medseg.data.download import open_manifest
from medseg.data.manifest import Manifest
from medseg.errors import ManifestError, MedsegError
from medseg.evaluation.writing import SUMMARY
from medseg.experiment import ExperimentConfig, changed, check_against, read_experiment
from medseg.io.atomic import atomic_write_text
from medseg.trained_model import CARD, ensemble_of, load_model
from pipelines.children import ChildError, medseg
from pipelines.console import Console
from pipelines.family import family
from pipelines.locations import find_config, find_manifest, output_folder
from pipelines.run import CONFIG, EVALUATION, RECORD
from pipelines.stopping import patient_signals
from pipelines.study import cache_folder, open_study

STATE = "cross_validation.json"


@dataclass(frozen=True)
class Part:
    """The cases that one training leaves out: a name that is safe in a path, the assignments, a title for people."""

    name: str
    assignments: tuple[str, ...]
    title: str


@dataclass(frozen=True)
class CrossValidation:
    """A cross-validation as a folder; whatever is done in it is kept, and the same command goes on."""

    home: Path
    experiment: ExperimentConfig
    data_root: Path | None
    parts: Sequence[Part]
    parallel: int
    device: str
    console: Console

    def train(self) -> list[Path]:
        """The finished run of each part, in order. Raises MedsegError that names the parts that failed."""
        runs: list[Path] = []
        failed: dict[str, str] = {}
        with patient_signals() as is_asked, ThreadPoolExecutor(self.parallel) as pool:
            work = [pool.submit(self._trained, part, number, is_asked) for number, part in enumerate(self.parts)]
            for part, future in zip(self.parts, work, strict=True):
                try:
                    runs.append(future.result())
                except ChildError as error:
                    failed[part.title] = str(error)
        if failed:
            told = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
            raise MedsegError(f"{len(failed)} of {len(self.parts)} trainings failed; the same command goes on: {told}")
        return runs

    def _trained(self, part: Part, number: int, is_asked: Callable[[], bool]) -> Path:
        """The run of a part: the finished one, or the latest one taken up again, or a new one."""
        if is_asked():
            raise KeyboardInterrupt
        begun = sorted((self.home / part.name).glob(f"*/{RECORD}"), key=lambda path: path.stat().st_mtime)
        run = begun[-1].parent if begun else None
        if run is not None and is_finished(run):
            self.console.say(f"{part.title}: done before, {run}")
            return run
        log = self.home / f"{part.name}.log"
        if run is not None and any((run / "checkpoints").glob("last-*.pt")):
            self.console.say(f"{part.title}: goes on, {run}")
            medseg(["resume", str(run), "--device", self._device(number)], log, is_asked)
            return run
        self.console.say(f"{part.title}: begins, told in {log}")
        answer = medseg(self._command(part, number), log, is_asked)
        self.console.say(f"{part.title}: Dice {answer['evaluation']['mean_foreground_dice']:.4f}")
        return Path(answer["run"])

    def _command(self, part: Part, number: int) -> list[str]:
        config = atomic_write_text(self.home / f"{part.name}.json", self._content(part))  # JSON is YAML
        root = [] if self.data_root is None else ["--data-root", str(self.data_root.resolve())]
        place = ["--output", str((self.home / part.name).resolve()), "--device", self._device(number)]
        return ["train", str(config), *place, *root]

    def _content(self, part: Part) -> str:
        assignments = list(part.assignments)
        if self.parallel > 1 and self.experiment.training.threads is None:
            from medseg.devices import usable_cores

            assignments.append(f"training.threads={max(1, usable_cores() // self.parallel)}")
        return changed(self.experiment, assignments).model_dump_json(indent=2)

    def _device(self, number: int) -> str:
        """Processes side by side take the CUDA devices in turns."""
        if self.parallel == 1 or self.device not in ("auto", "cuda"):
            return self.device
        import torch

        count = torch.cuda.device_count()
        return f"cuda:{number % count}" if count else self.device


def cross_validate(
    config: str,
    assignments: list[str],
    data_root: Path | None,
    output: Path | None,
    by: str | None = None,
    parallel: int = 1,
    device: str = "auto",
) -> dict[str, Any]:
    """Trains once for each fold of the manifest, or each value of a column; scores each case by who never saw it.

    Then the post-processing that these scores ask for, and all networks as one model in `model`.
    """
    from pipelines.out_of_fold import out_of_fold

    experiment = read_experiment(find_config(config), assignments)
    manifest, root = open_manifest(find_manifest(experiment.data.manifest), data_root, cache_folder())
    parts = parts_of(manifest, by)
    for part in parts:
        check_against(changed(experiment, list(part.assignments)), manifest)
    home = output_folder(output or Path("runs") / f"{experiment.name}-cross-validation")
    console = Console()
    console.say(f"{experiment.name}: {manifest.dataset.name} in {len(parts)} parts, kept in {home}")
    asked = {"experiment": experiment.model_dump(mode="json"), "manifest_digest": manifest.digest, "by": by}
    with family(home, STATE, asked, experiment, console) as (tracked, tracker):
        runs = CrossValidation(home, tracked, data_root, parts, parallel, device, console).train()
        studies = [open_study(read_experiment(run / CONFIG), root, manifest.folder) for run in runs]
        found = out_of_fold(dict(zip(runs, studies, strict=True)), home / EVALUATION, console)
        title = f"{experiment.name}-{len(runs)}-parts"
        model = ensemble_of([load_model(run) for run in runs], title, "1", "logits").adapted(found.assignments)
        tracker.log_metrics({f"out_of_fold/{name}": value for name, value in found.means.items()}, 0)
        for path in sorted((home / EVALUATION).iterdir()):
            tracker.log_artifact(path, f"{EVALUATION}/{path.name}")
        console.say(f"model of all {len(runs)} networks: {model.save(home / 'model')}")
    trained = {part.name: run for part, run in zip(parts, runs, strict=True)}
    return {"folder": home, "model": home / "model", "runs": trained, **found.content}


def parts_of(manifest: Manifest, by: str | None) -> list[Part]:
    """A part for each fold or, `by` a column of cases.csv, for each value. Raises ManifestError for fewer than two."""
    if by is None:
        parts = [
            Part(f"fold_{fold}", (f"data.fold={fold}", "data.leave_out=null"), f"fold {fold}")
            for fold in manifest.folds
        ]
        advice = "write the manifest with folds"
    else:
        labelled = [case for case in manifest.cases if case.label is not None]
        values = sorted({case.columns[by] for case in labelled if by in case.columns})
        parts = [
            Part(f"{number:02d}_{re.sub('[^A-Za-z0-9]+', '_', value)}"[:40], (_left_out(by, value),), f"{by} {value}")
            for number, value in enumerate(values)
        ]
        advice = f"give --by a column with several values, not {by!r}"
    if len(parts) < 2:
        raise ManifestError(f"{manifest.folder}: has {len(parts)} parts to leave out; {advice}")
    return parts


def is_finished(run: Path) -> bool:
    """Whether a run has its model and its scores."""
    return (run / "model" / CARD).is_file() and (run / EVALUATION / SUMMARY).is_file()


def _left_out(column: str, value: str) -> str:
    return f"data.leave_out={json.dumps({'column': column, 'value': value})}"
