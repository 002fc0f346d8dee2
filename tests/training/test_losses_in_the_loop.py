"""Every loss of the catalogue in the training loop, and schedules on weights through a stop and a resume."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from medseg.config import validate
from medseg.data.loaders import Patches, training_case
from medseg.data.patches import PatchSettings
from medseg.data.phantoms import PHANTOM_LABELS, phantom
from medseg.data.preprocessing import Preprocessing, prepare
from medseg.losses import LOSSES, LossConfig, SumConfig, VoxelCounts, build_loss, count_voxels
from medseg.networks import UNetConfig
from medseg.reproducibility import weights_digest
from medseg.training.loop import Training
from medseg.training.settings import TrainingSettings

RAMPING: dict[str, Any] = {
    "terms": [
        {"loss": {"name": "cross_entropy", "weights": "inverse_frequency"}},
        {"weight": 0.1, "ramp": {"end": 0.8}, "loss": {"name": "boundary"}},
    ]
}
CONFIGS = {name: entry.model_validate(RAMPING if name == "sum" else {}) for name, entry in LOSSES}


class Heard:
    """An observer that remembers the losses."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def stepped(self, step: int, total: int, values: Mapping[str, float]) -> None:
        self.losses.append(values["loss"])

    def validated(self, step: int, scores: Mapping[str, float]) -> None:
        """Nothing to remember."""

    def warned(self, message: str) -> None:
        """Nothing to remember."""

    def asks_to_stop(self) -> bool:
        return False


@pytest.fixture(scope="module")
def patches() -> Patches:
    cases = []
    for number in range(2):
        image, label = phantom(number, (20, 24, 16))
        cases.append(training_case(f"phantom{number}", prepare(image, Preprocessing(), label), PHANTOM_LABELS))
    return Patches(cases, PatchSettings(size=(16, 16, 16)), [], seed=3)


def counts(patches: Patches) -> VoxelCounts:
    return count_voxels((case.label.numpy() for case in patches.cases), PHANTOM_LABELS)


def training(patches: Patches, folder: Path, config: LossConfig) -> Training:
    torch.manual_seed(0)
    folder.mkdir(exist_ok=True)
    plan = TrainingSettings.model_validate({"total_steps": 4, "batch_size": 2, "workers": 0})
    network = UNetConfig(channels=(4, 8)).build(1, PHANTOM_LABELS.channels)
    loss = build_loss(config.weighed(counts(patches)) if config.needs_counts else config, PHANTOM_LABELS)
    return Training(network, loss, PHANTOM_LABELS, patches, plan, torch.device("cpu"), folder)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_loss_trains(patches: Patches, tmp_path: Path, name: str) -> None:
    run, heard = training(patches, tmp_path, CONFIGS[name]), Heard()
    before = {key: value.clone() for key, value in run.network.named_parameters()}
    run.run(2, heard)
    assert len(heard.losses) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in heard.losses)
    assert all(not torch.equal(value, before[key]) for key, value in run.network.named_parameters())


def test_the_loop_tells_the_loss_how_far_it_is(patches: Patches, tmp_path: Path) -> None:
    told: list[float] = []

    class Listening(torch.nn.Module):
        def forward(self, logits: torch.Tensor, label: torch.Tensor, progress: float) -> torch.Tensor:
            told.append(progress)
            return (logits**2).mean()

    run = training(patches, tmp_path, CONFIGS["dice"])
    run.loss = Listening()
    run.run(4, Heard())
    assert told == [0, 0.25, 0.5, 0.75]


def test_a_run_with_ramps_and_counts_resumes_as_the_very_same_run(patches: Patches, tmp_path: Path) -> None:
    config = validate(SumConfig, RAMPING, "experiment.yaml")
    whole = training(patches, tmp_path / "whole", config)
    whole.run(4, Heard())
    first = training(patches, tmp_path / "parts", config)
    steps = range(2)
    for step, batch in zip(steps, first.stream.batches(steps), strict=True):
        first._step(step, 4, batch)
    first.progress = type(first.progress)(step=2)
    first.save(4)
    second = training(patches, tmp_path / "parts", config)
    second.run(second.restore().total_steps, Heard())
    assert weights_digest(second.network.state_dict()) == weights_digest(whole.network.state_dict())
