"""`medseg resume`: a training that was stopped goes on from its last checkpoint, as if nothing had happened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.console import Console


def resume(run: Path, device: str) -> dict[str, Any]:
    """Takes up the run in a folder; config, manifest and data root are those it began with."""
    from medseg.devices import choose_device
    from pipelines.run import Run
    from pipelines.study import build_training, open_study

    console = Console()
    target = choose_device(device)
    opened = Run.open(run)
    study = open_study(opened.experiment, opened.data_root, opened.manifest)
    opened.check_same_data(study)
    training = build_training(study, opened.folder, target, console, pretrained=False)
    total_steps, notes = training.restore()
    for note in notes:
        console.say(f"warning: {note}")
    console.say(f"{opened.folder}: goes on after step {training.progress.step} of {total_steps}")
    return opened.carry_out(study, training, total_steps, console)
