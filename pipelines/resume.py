"""`medseg resume`: a training that was stopped goes on from its last checkpoint, as if nothing had happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def resume(run: Path, device: str) -> dict[str, Any]:
    """Takes up the run in a folder; config, manifest and data root are those it began with."""
    from pipelines.run import Run
    from pipelines.study import build_training, open_study
    from pipelines.world import console_of_all, joined

    console = console_of_all()
    opened = Run.open(run)
    study = open_study(opened.experiment, opened.data_root, opened.manifest)
    opened.check_same_data(study)
    with joined(device) as (target, world):
        training = build_training(study, opened.folder, target, console, pretrained=False, world=world)
        total_steps, notes = training.restore()
        for note in notes:
            console.say(f"warning: {note}")
        console.say(f"{opened.folder}: goes on after step {training.progress.step} of {total_steps}")
        return opened.carry_out(study, training, total_steps, console)
