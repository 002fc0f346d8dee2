"""`medseg sweep`: trainings that differ in some settings, chosen one after the other by how the others did."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.config import suggestion
from medseg.errors import ConfigError, MedsegError
from medseg.experiment import ExperimentConfig, changed, read_experiment
from medseg.extras import Extra
from medseg.io.atomic import atomic_write_bytes, atomic_write_text
from medseg.pictures import curves
from pipelines.children import ChildError, medseg
from pipelines.console import Console
from pipelines.family import family
from pipelines.locations import find_config, output_folder
from pipelines.run import VALIDATIONS
from pipelines.stopping import patient_signals
from pipelines.sweep_settings import Choices, Span, SweepConfig, read_sweep

if TYPE_CHECKING:
    import optuna

SWEEP = Extra("sweep", ("optuna",), "pip install 'medseg[sweep]'")
STATE, BEST = "sweep.json", "best.json"
_HEARTBEAT_S = 60  # after which a trial of a killed machine counts as lost, and is tried again


@dataclass
class Sweep:
    """A search as a folder and a storage, which several machines may share."""

    home: Path
    config: SweepConfig
    experiment: ExperimentConfig
    data_root: Path | None
    device: str
    console: Console
    is_asked: Callable[[], bool]

    def objective(self, trial: optuna.Trial) -> float:
        """Trains with the trial's settings; raises TrialPruned for one that falls behind."""
        import optuna

        given = {key: _drawn(trial, key, span) for key, span in self.config.parameters.items()}
        assignments = [f"{key}={json.dumps(value)}" for key, value in given.items()]
        self.console.say(f"trial {trial.number}: {', '.join(assignments)}")
        experiment = changed(self.experiment, assignments)
        place = self.home / f"trial_{trial.number:04d}"
        place.mkdir(exist_ok=True)
        config = atomic_write_text(place / "experiment.json", experiment.model_dump_json(indent=2))
        root = [] if self.data_root is None else ["--data-root", str(self.data_root.resolve())]
        command = ["train", str(config), "--output", str(place.resolve()), "--device", self.device, *root]
        watch = _Watch(trial, place, self.config.pruning, self.is_asked)
        try:
            answer = medseg(command, place / "log", watch)
        except KeyboardInterrupt:
            if self.is_asked():
                raise
            raise optuna.TrialPruned from None
        value = _value(answer["evaluation"], self.config.metric)
        trial.set_user_attr("run", str(answer["run"]))
        return value


class _Watch:
    """Hears of a trial's validations while it is trained; answers whether it shall stop."""

    def __init__(self, trial: optuna.Trial, place: Path, prunes: bool, is_asked: Callable[[], bool]) -> None:
        self.trial, self.place, self.prunes, self.is_asked = trial, place, prunes, is_asked
        self.heard = 0

    def __call__(self) -> bool:
        return self.is_asked() or (self.prunes and self._falls_behind())

    def _falls_behind(self) -> bool:
        lines = [line for path in self.place.glob(f"*/{VALIDATIONS}") for line in path.read_text().splitlines()]
        if len(lines) == self.heard:
            return False
        for line in lines[self.heard :]:
            told = json.loads(line)
            self.trial.report(told["score"], told["step"])
        self.heard = len(lines)
        return bool(self.trial.should_prune())


def sweep(config: str, data_root: Path | None, output: Path | None, device: str) -> dict[str, Any]:
    """Runs the trials that are left; the same command on another machine, with a shared storage, takes some of them."""
    SWEEP.require("medseg sweep")
    import optuna

    settings = read_sweep(find_config(config))
    experiment = read_experiment(find_config(settings.base), list(settings.assignments))
    _check(settings, experiment)
    home = output_folder(output or Path("runs") / f"{settings.name}-sweep")
    console = Console()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    asked = {"sweep": settings.model_dump(mode="json", by_alias=True)}
    with family(home, STATE, asked, experiment, console) as (tracked, tracker), patient_signals() as is_asked:
        study = _study(settings, home)
        one = Sweep(home, settings, tracked, data_root, device, console, is_asked)
        while len(_ended(study)) < settings.trials:
            study.optimize(one.objective, n_trials=1, catch=(ChildError,))
            if _all_fail(study):
                raise MedsegError(f"the first trials all failed; see the logs in {home}")
        found = _told(study, home, console)
        tracker.log_metrics({"best": found["best"]["value"], "trials": len(found["trials"])}, 0)
        tracker.log_picture((home / "sweep.png").read_bytes(), "sweep.png")
        tracker.log_text(json.dumps(found, indent=2), "sweep.json")
    return {"folder": home, **found}


def _study(settings: SweepConfig, home: Path) -> optuna.Study:
    """The storage's study, whose lost trials are tried again."""
    import optuna
    from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback

    url = settings.storage or f"sqlite:///{home.resolve()}/trials.db"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # heartbeats are, since 2021
        again = RetryHeartbeatStaleTrialCallback()
        storage = RDBStorage(url, heartbeat_interval=_HEARTBEAT_S, heartbeat_stale_trial_callback=again)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=3) if settings.pruning else optuna.pruners.NopPruner()
    study = optuna.create_study(
        storage=storage, pruner=pruner, study_name=settings.name, direction="maximize", load_if_exists=True
    )
    seed = settings.seed + len(study.trials)  # one that goes on does not draw again what it drew before
    match settings.sampler:
        case "tpe":
            study.sampler = optuna.samplers.TPESampler(seed=seed)
        case "random":
            study.sampler = optuna.samplers.RandomSampler(seed=seed)
        case "grid":
            study.sampler = optuna.samplers.GridSampler(_grid(settings.parameters), seed=settings.seed)
    return study


def _drawn(trial: optuna.Trial, key: str, span: Span | Choices) -> Any:
    """What the trial takes for a key. Choices are kept as JSON, since a storage knows plain values alone."""
    if isinstance(span, Choices):
        return json.loads(trial.suggest_categorical(key, [json.dumps(one) for one in span.choices]))
    if span.is_whole:
        step = 1 if span.step is None else int(span.step)
        return trial.suggest_int(key, int(span.low), int(span.high), step=step, log=span.log)
    return trial.suggest_float(key, span.low, span.high, step=span.step, log=span.log)


def _grid(parameters: Mapping[str, Span | Choices]) -> dict[str, list[Any]]:
    """Every value of each key."""
    grid: dict[str, list[Any]] = {}
    for key, span in parameters.items():
        if isinstance(span, Choices):
            grid[key] = [json.dumps(one) for one in span.choices]
        else:
            assert span.step is not None
            count = int((span.high - span.low) / span.step + 1e-9) + 1
            grid[key] = [span.low + number * span.step for number in range(count)]
    return grid


def _check(settings: SweepConfig, experiment: ExperimentConfig) -> None:
    """Raises ConfigError where a key cannot be set, or pruning has nothing to go by."""
    for key, span in settings.parameters.items():
        ends = span.choices if isinstance(span, Choices) else (span.low, span.high)
        for value in ends:
            changed(experiment, [f"{key}={json.dumps(value)}"])
    if settings.pruning and not experiment.training.validate_every_epochs:
        raise ConfigError(
            f"{settings.name}: pruning follows validations, but {settings.base} has none; add "
            "training.validate_every_epochs=5 to `set`, or set pruning: false"
        )
    if not experiment.data.validates:
        raise ConfigError(f"{settings.name}: {settings.base} validates on no case; set data.fold")


def _value(evaluation: Mapping[str, Any], metric: str) -> float:
    """A metric's mean over labels and cases. Raises ConfigError for one that is not there."""
    metrics = evaluation["foreground"]["metrics"]
    if metric not in metrics:
        raise ConfigError(f"sweep metric {metric!r} is not known{suggestion(metric, metrics)}")
    value = metrics[metric]["mean"]
    if value is None:
        raise ConfigError(f"sweep metric {metric!r} is not defined on any case; choose another")
    return float(value)


def _ended(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials that told something: finished or pruned."""
    from optuna.trial import TrialState

    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def _all_fail(study: optuna.Study) -> bool:
    """Whether the search goes nowhere: three trials have failed and none has ended."""
    from optuna.trial import TrialState

    return not _ended(study) and len(study.get_trials(deepcopy=False, states=(TrialState.FAIL,))) >= 3


def _told(study: optuna.Study, home: Path, console: Console) -> dict[str, Any]:
    """The table, the picture, and what `--json` prints; the best experiment lies in best.json, ready to be trained."""
    from optuna.trial import TrialState

    trials: list[dict[str, Any]] = [
        {
            "number": trial.number,
            "state": trial.state.name.lower(),
            "value": trial.value if trial.state == TrialState.COMPLETE else None,
            "settings": {key: _plain(value) for key, value in trial.params.items()},
            "run": trial.user_attrs.get("run"),
        }
        for trial in study.get_trials(deepcopy=False)
    ]
    complete = [trial for trial in trials if trial["value"] is not None]
    if not complete:
        raise MedsegError(f"no trial came to its end; see the logs in {home}")
    best = max(complete, key=lambda trial: trial["value"])
    so_far, highest = list[tuple[float, float]](), float("-inf")
    for trial in complete:
        highest = max(highest, trial["value"])
        so_far.append((trial["number"], highest))
    points = {"trial": [(one["number"], one["value"]) for one in complete], "best so far": so_far}
    atomic_write_bytes(home / "sweep.png", curves(points, home.name, x_label="trial"))
    content = (home / f"trial_{best['number']:04d}" / "experiment.json").read_text(encoding="utf-8")
    atomic_write_text(home / BEST, content)
    keys = list(best["settings"])
    rows = [
        [one["number"], one["state"], *(json.dumps(one["settings"].get(key)) for key in keys), _shown(one["value"])]
        for one in sorted(trials, key=lambda one: -1 if one["value"] is None else one["value"], reverse=True)
    ]
    console.table(["trial", "state", *keys, "value"], rows)
    console.say(f"best: trial {best['number']}; train it again with: medseg train {home / BEST}")
    return {"best": best, "trials": trials}


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _plain(value: Any) -> Any:
    """A setting as it was given: choices are kept as JSON."""
    return json.loads(value) if isinstance(value, str) else value
