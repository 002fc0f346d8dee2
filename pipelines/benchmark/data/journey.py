"""`medseg benchmark data`: training against a batch at hand, patches against other libraries, crops, and memory."""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from medseg.devices import choose_device, choose_precision, usable_cores
from medseg.experiment import read_experiment
from medseg.training.loop import Training
from pipelines.benchmark.data.crops import LargeVolume, by_times, crop_times
from pipelines.benchmark.data.memory import cases_on_disk, memory_needed
from pipelines.benchmark.data.rounds import Comparison
from pipelines.benchmark.data.sources import Draws
from pipelines.benchmark.data.steps import training_rate
from pipelines.benchmark.data.throughput import PEERS, patch_rates
from pipelines.benchmark.results import described
from pipelines.benchmark.tables import interval, markdown, publish
from pipelines.benchmark.work import Work
from pipelines.locations import find_config, output_folder
from pipelines.study import Study, build_training, open_study, with_threads

_CASES = 16  # of which memory is measured; twenty times as many are more than a process keeps open
_CROP = (0.4, 0.4, 0.6)  # of a volume's edges: 128 x 128 x 96 of 320 x 320 x 160
_LEGEND = (
    "Medians over the rounds, in which all take turns; a ratio is the median of the rounds' own ratios, of medseg to "
    "what stands beside it, with the lowest and the highest. For rates more is better, for ms and MB less."
)


@dataclass(frozen=True)
class DataPlan:
    """How much of everything is measured."""

    rounds: int = 5
    steps: int = 20  # of training, a round and side
    batches: int = 100  # of patches, a round and source
    crops: int = 10  # a round and way
    volume: tuple[int, int, int] = (320, 320, 160)  # voxels that the crops come from
    times: int = 20  # cases of the second process whose memory is measured, those of the first being 1
    patches: int = 640  # that each of these two draws


def data(work: Work, config: str, assignments: Sequence[str], plan: DataPlan) -> dict[str, Any]:
    """Measures all in one run, and writes the table; nothing of it is kept for another run."""
    experiment, load = read_experiment(find_config(config), list(assignments)), os.getloadavg()[0]
    study = open_study(experiment, work.data_root)
    study = with_threads(study, experiment.training.threads or usable_cores())
    with tempfile.TemporaryDirectory(dir=output_folder(work.output), prefix=".measured-") as place:
        found, notes = _measured(work, study, plan, Path(place))
    text = _head(work, study, plan, load), _table(found), " ".join([_LEGEND, *notes])
    facts = {"machine": work.machine, "plan": asdict(plan), "experiment": experiment.name, "load": load}
    values = [
        {"measured": one.measured, "beside": one.beside, "medseg": one.ours, "other": one.theirs} for one in found
    ]
    facts |= {"peers": _peers(), "notes": notes, "values": values}
    return publish(work, facts, [one.content() for one in found], "\n\n".join(text) + "\n")


def _measured(work: Work, study: Study, plan: DataPlan, home: Path) -> tuple[list[Comparison], list[str]]:
    """The comparisons, and what is to be said of them; everything written goes below `home`."""
    training, console = _training(work, study, home), work.console
    rate = training_rate(training, plan.steps, plan.rounds, console)
    settings, patches = study.experiment.training, training.patches
    draws = Draws(patches.cases, patches.patch, study.experiment.augmentation, settings.batch_size, settings.workers)
    del training  # its memory, before that of the others is filled
    rates, notes = patch_rates(draws, plan.batches, plan.rounds, console)
    console.say(f"writing and preparing a volume of {by_times(plan.volume)}")
    size = tuple(round(share * extent) for share, extent in zip(_CROP, plan.volume, strict=True))
    crops = crop_times(LargeVolume.made(home / "volume", plan.volume, size), plan.crops, plan.rounds, console)
    manifests = cases_on_disk(home / "cases", _CASES, plan.times, console)
    memory, difference = memory_needed(work, home / "cases", manifests, plan.patches)
    return [rate, *rates, *crops, *memory], [*notes, *difference]


def _training(work: Work, study: Study, home: Path) -> Training:
    """The experiment as it is shipped, its cases in the user's own cache; only checkpoints go elsewhere."""
    (home / "run" / "checkpoints").mkdir(parents=True)
    return build_training(study, home / "run", choose_device(work.device), work.console)


def _head(work: Work, study: Study, plan: DataPlan, load: float) -> str:
    """Machine, versions, and what was trained and drawn, in one line."""
    config = study.experiment
    settings = config.training
    peers = [f"{name} {version}" for name, version in _peers().items()]
    precision = str(choose_precision(settings.precision, choose_device(work.device))).removeprefix("torch.")
    batch = f"batches of {settings.batch_size} x {by_times(config.patch.size)}"
    trained = (
        f"{config.name}, {config.data.manifest} {config.data.part}, {batch}, {precision}, workers: {settings.workers}"
    )
    machine = ", ".join([described(work.machine), *peers])
    return f"{machine}; load {load:.1f} as it began; {trained}; rounds: {plan.rounds}."


def _peers() -> dict[str, str]:
    """Versions of the libraries measured beside medseg that the machine's line lacks."""
    modules = ["nibabel", *(PEERS.modules if PEERS.is_installed() else ())]
    return {module: importlib.metadata.version(module) for module in modules}


def _table(found: Sequence[Comparison]) -> str:
    rows = [
        [
            f"{one.measured}, {one.unit}",
            f"{content['medseg']:.3g}",
            one.beside,
            f"{content['other']:.3g}",
            interval(content, "ratio"),
            "" if one.at_least is None else f"at least {one.at_least:g}: {'met' if one.is_met else 'missed'}",
        ]
        for one, content in ((one, one.content()) for one in found)
    ]
    return markdown(["measured", "medseg", "beside", "theirs", "ratio [lowest, highest]", "aim"], rows)
