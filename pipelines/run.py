"""One training run as a folder: what it was asked to do, its checkpoints, its model, its scores and its record."""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from medseg import __version__
from medseg.config import validate
from medseg.data.manifest import DATASET
from medseg.errors import TrainingError
from medseg.experiment import ExperimentConfig, read_experiment
from medseg.io.atomic import atomic_write_text
from medseg.pictures import curves
from medseg.reproducibility import environment, git_state, weights_digest
from medseg.tracking import Tracker, build_tracker
from medseg.tracking.names import flat
from medseg.trained_model import ModelCard, TrainedModel
from medseg.training.checkpoint import Progress
from medseg.training.loop import Training
from pipelines.console import Console, Steps
from pipelines.scoring import Scoring, result_of
from pipelines.stopping import patient_signals
from pipelines.study import Study

CONFIG, RECORD, PREDICTIONS, EVALUATION = "config.yaml", "run.json", "predictions", "evaluation"
VALIDATIONS = "validations.jsonl"  # a line for each, as soon as it is known
_CODE = Path(__file__).resolve().parents[1]  # the checkout, where this is one
_LOGGED_STEPS = 10  # steps that one point of a curve is the mean of


@dataclass(frozen=True)
class Run:
    """A run's folder and the facts in its run.json."""

    folder: Path
    experiment: ExperimentConfig
    data_root: Path
    manifest: Path
    manifest_digest: str
    tracker_run: str | None = None

    @classmethod
    def create(cls, output: Path, study: Study) -> Run:
        """A run with a name of its own below `output`, of the experiment and the time; `begin` makes its folder."""
        name = f"{study.experiment.name}-{datetime.now().astimezone():%Y%m%d-%H%M%S}"
        taken = [name, *(f"{name}-{number}" for number in range(2, 100))]
        folder = next(output / one for one in taken if not (output / one).exists())
        manifest = study.manifest
        return cls(folder, study.experiment, study.root.resolve(), manifest.folder.resolve(), manifest.digest)

    @classmethod
    def open(cls, folder: Path) -> Run:
        """The run in a folder. Raises TrainingError where there is none."""
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            places = Path(record["data_root"]), Path(record["manifest"])
            facts = str(record["manifest_digest"]), record["tracker_run"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainingError(
                f"{folder}: is no run ({RECORD} is missing or damaged); give a folder in runs/"
            ) from error
        return cls(folder, read_experiment(folder / CONFIG), *places, *facts)

    def begin(self) -> None:
        """Makes the folder and writes what the run is to do. Raises TrainingError where it cannot be made."""
        content = yaml.safe_dump(self.experiment.model_dump(mode="json"), sort_keys=False)
        try:
            (self.folder / "checkpoints").mkdir(parents=True)
        except OSError as error:
            raise TrainingError(f"{self.folder}: cannot be made ({error.strerror}); choose another --output") from error
        atomic_write_text(self.folder / CONFIG, content)
        self._write()

    def check_same_data(self, study: Study) -> None:
        """Refuses to go on with other cases than the run began with."""
        if study.manifest.digest != self.manifest_digest:
            raise TrainingError(f"{self.folder}: the manifest has changed since the run began; start a new run")

    def carry_out(self, study: Study, training: Training, total_steps: int, console: Console) -> dict[str, Any]:
        """Trains, keeps the model, scores it on the validation fold, and records everything.

        Of processes that train together, the first does all but the training alone; the others answer nothing.
        """
        if not training.world.is_first:
            self._follow(training, total_steps)
            return {}
        tracker = build_tracker(self.experiment.tracking, self.folder.parent.resolve(), console.say)
        with self._recorded(tracker, study, total_steps):
            progress, reporter = self._train(training, total_steps, tracker, console)
            tracker.log_picture(curves(reporter.curves, self.folder.name), "learning.png")
            model = self._model(study, training, progress.step)
            tracker.log_tags({"weights_sha256": model.card.weights_sha256, "steps_done": str(progress.step)})
            tracker.log_artifact(model.save(self.folder / "model"), "model")
            console.say(f"model: {self.folder / 'model'}")
            result: dict[str, Any] = {"run": self.folder, "model": self.folder / "model", "steps": progress.step}
            result["weights_sha256"] = model.card.weights_sha256
            if study.validation:
                result["evaluation"] = self._score(study, model, training, tracker, console)
        console.say(f"record: {tracker.where}")
        return result

    def _train(
        self, training: Training, total_steps: int, tracker: Tracker, console: Console
    ) -> tuple[Progress, _Reporter]:
        """Runs the loop; a request to stop is answered after a whole step, with a checkpoint."""
        left = total_steps - training.progress.step
        with patient_signals() as is_asked, console.progress(left, "training") as steps:
            reporter = _Reporter(tracker, steps, console, is_asked, self.folder / VALIDATIONS)
            progress = training.run(total_steps, reporter)
            if is_asked() and progress.step < total_steps:
                console.say(
                    f"stopped after step {progress.step} of {total_steps}; go on with: medseg resume {self.folder}"
                )
                raise KeyboardInterrupt
            return progress, reporter

    def _follow(self, training: Training, total_steps: int) -> None:
        """The part of a process that does not write."""
        with patient_signals() as is_asked:
            progress = training.run(total_steps, _Silence(is_asked))
            if is_asked() and progress.step < total_steps:
                raise KeyboardInterrupt

    @contextmanager
    def _recorded(self, tracker: Tracker, study: Study, total_steps: int) -> Iterator[None]:
        """Opens the record, writes what the run is made from, and closes it with how the run ended."""
        tracker.start(self.folder.name, self._tags(study), self.tracker_run)
        replace(self, tracker_run=tracker.run_id)._write()
        tracker.log_params({**_curated(self.experiment), "total_steps": total_steps})
        tracker.log_dataset(study.manifest.dataset.name, study.manifest.digest)
        tracker.log_artifact(self.folder / CONFIG, CONFIG)
        tracker.log_artifact(study.manifest.folder / DATASET, f"manifest/{DATASET}")
        tracker.log_text(_opaque_cases(study), "manifest/cases.csv")
        tracker.log_text(json.dumps(environment(), indent=2), "environment.json")
        code = git_state(_CODE)
        if code is not None and code.is_dirty:
            tracker.log_text(code.diff, "code/changes.diff")
        status = "failed"
        try:
            yield
            status = "finished"
        except KeyboardInterrupt:
            status = "killed"
            raise
        finally:
            tracker.finish(status)  # type: ignore[arg-type]

    def _tags(self, study: Study) -> dict[str, str]:
        code = git_state(_CODE)
        tags = {
            "medseg_version": __version__,
            "seed": str(self.experiment.seed),
            "manifest": study.manifest.dataset.name,
            "manifest_digest": study.manifest.digest,
            "python": platform.python_version(),
        }
        return tags if code is None else {**tags, "git_commit": code.commit, "git_dirty": str(code.is_dirty)}

    def _model(self, study: Study, training: Training, steps: int) -> TrainedModel:
        weights = training.chosen_weights()
        card = {
            "name": self.experiment.name,
            "version": self.folder.name.removeprefix(f"{self.experiment.name}-"),
            "medseg_version": __version__,
            "experiment": self.experiment.model_dump(mode="json"),
            "dataset": study.manifest.dataset.model_dump(mode="json"),
            "manifest_digest": self.manifest_digest,
            "training_cases": len(study.training),
            "total_steps": steps,
            "weights_sha256": weights_digest(weights),
        }
        return TrainedModel(validate(ModelCard, card, "model card"), weights)

    def _score(
        self, study: Study, model: TrainedModel, training: Training, tracker: Tracker, console: Console
    ) -> dict[str, Any]:
        predictor = model.predictor(training.device)
        labels, metrics = study.manifest.dataset.labels, self.experiment.metrics
        kept = self.folder / PREDICTIONS
        scoring = Scoring(study.read, lambda image: model.segment(image, predictor), labels, metrics, kept)
        folder = self.folder / EVALUATION
        summary = scoring.write(scoring.run(study.validation, console), study.validation, folder, console)
        tracker.log_metrics({f"final/{name}": value for name, value in summary.means().items()}, model.card.total_steps)
        for path in sorted(folder.iterdir()):
            if path.suffix == ".png":
                tracker.log_picture(path.read_bytes(), path.name)
            else:
                tracker.log_artifact(path, f"evaluation/{path.name}")
        return result_of(summary, folder)

    def _write(self) -> None:
        facts = {
            "schema_version": 1,
            "data_root": str(self.data_root),
            "manifest": str(self.manifest),
            "manifest_digest": self.manifest_digest,
            "tracker_run": self.tracker_run,
        }
        atomic_write_text(self.folder / RECORD, json.dumps(facts, indent=2) + "\n")


class _Silence:
    """Tells nobody; another process does."""

    def __init__(self, is_asked: Callable[[], bool]) -> None:
        self.is_asked = is_asked

    def stepped(self, step: int, total: int, values: Mapping[str, float]) -> None:
        pass

    def validated(self, step: int, scores: Mapping[str, float]) -> None:
        pass

    def warned(self, message: str) -> None:
        pass

    def asks_to_stop(self) -> bool:
        return self.is_asked()


class _Reporter:
    """Tells the progress bar of every step, and the tracker of means over a few."""

    def __init__(
        self, tracker: Tracker, steps: Steps, console: Console, is_asked: Callable[[], bool], validations: Path
    ) -> None:
        self.tracker, self.steps, self.console, self.is_asked = tracker, steps, console, is_asked
        self.validations = validations
        self.recent: list[float] = []
        self.curves: dict[str, list[tuple[float, float]]] = {"training loss": []}

    def stepped(self, step: int, total: int, values: Mapping[str, float]) -> None:
        self.recent.append(values["loss"])
        self.steps.advance(1, f"loss {values['loss']:.3f}, epoch {values['epoch']:.1f}")
        if step % _LOGGED_STEPS == 0 or step == total:
            mean = sum(self.recent) / len(self.recent)
            shown = {"train/loss": mean, "train/learning_rate": values["learning_rate"], "epoch": values["epoch"]}
            self.tracker.log_metrics(shown, step)
            self.curves["training loss"].append((step, mean))
            self.recent.clear()

    def asks_to_stop(self) -> bool:
        return self.is_asked()

    def warned(self, message: str) -> None:
        self.console.say(f"warning: {message}")

    def validated(self, step: int, scores: Mapping[str, float]) -> None:
        self.tracker.log_metrics({f"validation/{name}": value for name, value in scores.items()}, step)
        self.curves.setdefault("validation Dice", []).append((step, scores["score"]))
        try:
            with self.validations.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **scores}) + "\n")
        except OSError as error:
            self.warned(f"{self.validations} could not be written ({error.strerror}); the run goes on")
        shown = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        self.console.say(f"validation at step {step}: {shown}")


def _opaque_cases(study: Study) -> str:
    """The manifest's cases for the record, without patients and paths, which stay where the data are."""
    rows = [
        [
            case.id,
            "" if case.fold is None else str(case.fold),
            ";".join(case.annotated or ()),
            *(digest or "" for _, digest in case.files),
        ]
        for case in study.manifest.cases
    ]
    return (
        "\n".join(",".join(row) for row in [["case_id", "fold", "annotated", "sha256 of images, then label"], *rows])
        + "\n"
    )


def _curated(experiment: ExperimentConfig) -> dict[str, object]:
    """The settings that people compare runs by, flat."""
    content = experiment.model_dump(mode="json", exclude={"description", "tracking", "schema_version"})
    return flat(content)
