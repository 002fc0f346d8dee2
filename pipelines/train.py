"""`medseg train`: a config and a manifest become a trained model, its scores and the record of the run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.experiment import ExperimentConfig, read_experiment
from pipelines.console import Console, duration
from pipelines.locations import find_config
from pipelines.process import STARTED_S

if TYPE_CHECKING:
    from medseg.training.loop import Training


def train(config: str, assignments: list[str], data_root: Path | None, output: Path, device: str) -> dict[str, Any]:
    """Trains from the beginning; all that it makes lies in a new folder below `output`."""
    return train_experiment(read_experiment(find_config(config), assignments), data_root, output, device)


def train_experiment(experiment: ExperimentConfig, data_root: Path | None, output: Path, device: str) -> dict[str, Any]:
    """The same, for an experiment at hand."""
    from pipelines.locations import output_folder
    from pipelines.study import open_study

    console = Console()
    study = open_study(experiment, data_root)
    console.say(
        f"{experiment.name}: {study.manifest.dataset.name}, {len(study.training)} cases to train on, "
        f"{len(study.validation)} to validate on"
    )
    from medseg.devices import choose_device, usable_cores
    from pipelines.run import Run
    from pipelines.study import build_training, with_digests, with_threads

    target = choose_device(device)
    study = with_threads(with_digests(study), experiment.training.threads or usable_cores())
    run = Run.create(output_folder(output), study)
    training = build_training(study, run.folder, target, console, pretrained=True)
    total_steps = _length(training, experiment, console)
    run.begin()  # from here on there is something to keep
    return run.carry_out(study, training, total_steps, console)


def _length(training: Training, experiment: ExperimentConfig, console: Console) -> int:
    """The number of steps: as configured, or as many as fit in `max_minutes` by a few timed ones."""
    from medseg.training.budget import Costs, steps_within

    settings = experiment.training
    if settings.total_steps is not None:
        return settings.total_steps
    assert settings.max_minutes is not None
    validation_s = 0.0
    if training.steps_per_validation and training.validate is not None:
        started = time.monotonic()
        training.validate(training.network)
        validation_s = time.monotonic() - started
    step_s = training.time_a_step()
    costs = Costs(time.monotonic() - STARTED_S, step_s, validation_s)
    total_steps = steps_within(settings.max_minutes, costs, training.steps_per_validation)
    console.say(
        f"a step takes {step_s:.2f} s here, {duration(costs.elapsed_s)} are spent: "
        f"{total_steps} steps end {settings.max_minutes:g} minutes after the start"
    )
    return total_steps
