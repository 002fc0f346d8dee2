"""`medseg train`: a config and a manifest become a trained model, its scores and the record of the run."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.experiment import ExperimentConfig, read_experiment
from pipelines.console import Console, duration
from pipelines.locations import find_config
from pipelines.process import STARTED_S
from pipelines.study import Study, open_study, with_digests, with_threads

if TYPE_CHECKING:
    import torch

    from medseg.devices import World
    from medseg.training.budget import Forecast
    from medseg.training.loop import Training


_WORTH_TIMING = 100  # steps of a run below which the few that are timed would cost too large a share


def train(
    config: str, assignments: list[str], data_root: Path | None, output: Path, device: str, dry_run: bool = False
) -> dict[str, Any]:
    """Trains from the beginning; all that it makes lies in a new folder below `output`.

    A dry run ends before the first step, with the forecast, and writes nothing.
    """
    experiment = read_experiment(find_config(config), assignments)
    return train_experiment(experiment, data_root, output, device, dry_run)


def train_experiment(
    experiment: ExperimentConfig, data_root: Path | None, output: Path, device: str, dry_run: bool = False
) -> dict[str, Any]:
    """The same, for an experiment at hand; processes that torchrun started do it together, the first one writes.

    Started again by torchrun because one of them died, they take up the run where its last checkpoint left it.
    """
    from pipelines.resume import resume
    from pipelines.world import begun_before, console_of_all, joined, processes_here

    before = begun_before(output)
    if before is not None:
        return resume(before, device)
    console = console_of_all()
    study = open_study(experiment, data_root)
    console.say(
        f"{experiment.name}: {study.manifest.dataset.name}, {len(study.training)} cases to train on, "
        f"{len(study.validation)} to validate on"
    )
    from medseg.devices import usable_cores

    cores = max(1, usable_cores() // processes_here())
    study = with_threads(with_digests(study), experiment.training.threads or cores)
    with joined(device) as (target, world):
        return _trained(study, output, target, world, console, dry_run)


def _trained(
    study: Study, output: Path, device: torch.device, world: World, console: Console, dry_run: bool
) -> dict[str, Any]:
    """A new run from its forecast to its record."""
    from pipelines.locations import output_folder
    from pipelines.run import Run
    from pipelines.study import build_training
    from pipelines.world import agreed_folder, note_begun

    plan = study.experiment.training
    run = Run.create(output if dry_run else output_folder(output), study)
    run = replace(run, folder=agreed_folder(run.folder, world, device))
    training = build_training(study, run.folder, device, console, pretrained=True, world=world)
    is_worth_it = dry_run or (plan.total_steps or _WORTH_TIMING) >= _WORTH_TIMING
    forecast = _forecast(training, study.experiment, console) if is_worth_it else None
    if dry_run and forecast is not None:
        return asdict(forecast)
    total_steps = forecast.total_steps if forecast is not None else plan.total_steps
    assert total_steps is not None
    if world.is_first:
        run.begin()  # from here on there is something to keep
        note_begun(output, run.folder)
    world.wait()
    return run.carry_out(study, training, total_steps, console)


def _forecast(training: Training, experiment: ExperimentConfig, console: Console) -> Forecast:
    """What the run will need, told; its steps are those configured, or as many as fit in `max_minutes`."""
    import torch

    from medseg.training.budget import Costs, Forecast, steps_within

    settings = experiment.training
    validation_s = 0.0
    if training.steps_per_validation and training.validate is not None:
        started = time.monotonic()
        training.validate(training.scored)
        validation_s = time.monotonic() - started
    step_s, needs = training.time_a_step()
    costs = Costs(time.monotonic() - STARTED_S, step_s, validation_s)
    total_steps = settings.total_steps
    if settings.max_minutes is not None:
        total_steps = steps_within(settings.max_minutes, costs, training.steps_per_validation)
        total_steps = int(training.world.first(torch.tensor([total_steps], device=training.device)))
        console.say(
            f"a step takes {step_s:.2f} s here, {duration(costs.elapsed_s)} are spent: "
            f"{total_steps} steps end {settings.max_minutes:g} minutes after the start"
        )
    assert total_steps is not None
    forecast = Forecast.of(total_steps, costs, training.steps_per_validation, needs)
    console.say(
        f"forecast: {total_steps} steps of {step_s:.2f} s, {duration(forecast.seconds)}; "
        f"memory {forecast.memory_bytes / 1e9:.1f} GB, disk {forecast.disk_bytes / 1e6:.0f} MB"
    )
    return forecast
