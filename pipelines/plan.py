"""`medseg plan`: a data set is measured, and a whole experiment written that fits the machine and the time."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import Any

import yaml

from medseg import __version__
from medseg.data.download import open_manifest
from medseg.data.fingerprint import fingerprint
from medseg.errors import ConfigError
from medseg.experiment import ExperimentConfig
from medseg.io.atomic import atomic_write_text
from medseg.planning import Cost, Goal
from medseg.planning import plan as planned
from pipelines.children import medseg
from pipelines.console import Console
from pipelines.locations import find_manifest
from pipelines.stopping import patient_signals
from pipelines.study import cache_folder

_SHARE = 0.6  # of the memory that is free, where nobody says how much may be used
_UNITS = {"": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12, "KIB": 2.0**10, "MIB": 2.0**20, "GIB": 2.0**30}


def plan(
    manifest: str, data_root: Path | None, output: Path | None, minutes: float, memory: str | None, device: str
) -> dict[str, Any]:
    """Writes an experiment for a manifest, with a comment on every choice; patch and batch are measured here."""
    allowed = None if memory is None else memory_bytes(memory)
    opened, root = open_manifest(find_manifest(manifest), data_root, cache_folder())
    cases = [case for case in opened.cases if case.label is not None]
    console = Console()
    with console.progress(len(cases), "reading cases") as steps:
        found = fingerprint(opened, cases, root, done=steps.advance)
    from medseg.devices import choose_device, free_memory_bytes

    target = choose_device(device)
    name = f"{opened.dataset.name}_plan"
    path = output or Path(f"{name}.yaml")
    goal = Goal(
        name=re.sub(r"[^A-Za-z0-9_.-]", "_", path.stem),
        manifest=manifest,
        fold=opened.folds[0] if opened.folds else None,
        minutes=minutes,
        memory_bytes=int(free_memory_bytes(target) * _SHARE) if allowed is None else allowed,
        device="cuda" if target.type == "cuda" else "cpu",
    )
    with tempfile.TemporaryDirectory() as folder, patient_signals() as is_asked:

        def measure(experiment: ExperimentConfig) -> Cost:
            config = Path(folder) / "candidate.yaml"
            config.write_text(yaml.safe_dump(experiment.model_dump(mode="json")), encoding="utf-8")
            size = " x ".join(map(str, experiment.patch.size))
            console.say(f"measuring a step of {experiment.training.batch_size} patches of {size}")
            command = ["benchmark", "cost", str(config), "--phase", "training", "--repetitions", "3"]
            command += ["--device", str(target)]
            answer = medseg(command, Path(folder) / "log", is_asked)
            return Cost(answer["fastest_s"] * answer["batch"], int(answer["peak_bytes"]))

        made = planned(found, goal, measure)
    head = [
        f"{opened.dataset.name}: {len(cases)} labelled cases, {goal.minutes:g} minutes on {target}, by medseg "
        f"{__version__}. Change what you know better; `medseg list settings` tells the rest."
    ]
    for one, other in found.likely_pairs:
        hint = f"labels {one!r} and {other!r} look like left and right of the same: name them as `pair` in dataset.yaml"
        console.say(hint)
        head.append(hint)
    atomic_write_text(path, made.text(head))
    console.say(f"plan written to {path}; train it with: medseg train {path}")
    return {"plan": path, "experiment": made.experiment.model_dump(mode="json"), "fingerprint": found.content()}


def memory_bytes(text: str) -> int:
    """ "24GB" or "512 MiB" in bytes. Raises ConfigError for anything else."""
    match = re.fullmatch(r"\s*([0-9.]+)\s*([A-Za-z]*)\s*", text)
    if match is None or match[2].upper() not in _UNITS or match[1].count(".") > 1 or not match[1].strip("."):
        raise ConfigError(f"--memory {text!r} is no size; write it like 24GB")
    found = int(float(match[1]) * _UNITS[match[2].upper()])
    if found <= 0:
        raise ConfigError(f"--memory {text!r} leaves nothing; give more")
    return found
