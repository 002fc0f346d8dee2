"""What a study hands to the parts of a training run."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg.data.phantoms import PHANTOM_LABELS, phantom
from medseg.experiment import read_experiment
from medseg.losses import CrossEntropyConfig
from medseg.networks import UNetConfig
from medseg.networks.tensor_files import file_digest
from pipelines.console import Console
from pipelines.study import build_training, open_study, with_digests
from pipelines.train import train_experiment
from tests.pipelines.phantom_study import write_experiment, write_phantoms

SHAPE = (16, 20, 16)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three phantoms; the last one validates."""
    folder = tmp_path_factory.mktemp("study")
    write_phantoms(folder / "manifest", folder, folds=[1, 1, 0], shape=SHAPE)
    return folder


def test_the_loss_weighs_labels_by_the_voxels_of_the_training_cases_alone(home: Path, tmp_path: Path) -> None:
    config = write_experiment(
        home / "weighed.yaml",
        loss={"name": "cross_entropy", "weights": "inverse_frequency"},
        training={"total_steps": 1, "batch_size": 1},
    )
    study = open_study(read_experiment(config), home)
    training = build_training(study, tmp_path, torch.device("cpu"), Console(io.StringIO()))

    label = np.stack([phantom(number, SHAPE)[1].array for number in range(2)])
    shares = [1 / np.count_nonzero(label == value) for value in PHANTOM_LABELS.values]
    by_hand = CrossEntropyConfig(weights=tuple(share / sum(shares) for share in shares)).build(PHANTOM_LABELS)
    torch.manual_seed(0)
    logits, truth = torch.randn(1, 3, *SHAPE), torch.from_numpy(label[:1, None].astype(np.int32))
    assert float(training.loss(logits, truth)) == pytest.approx(float(by_hand(logits, truth)), rel=1e-5)


def test_a_dry_run_forecasts_and_writes_nothing(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    training = {"total_steps": 30, "batch_size": 1, "validate_every_epochs": 10}
    experiment = read_experiment(write_experiment(home / "dry.yaml", training=training))
    forecast = train_experiment(experiment, home, tmp_path / "runs", "cpu", dry_run=True)
    assert forecast["total_steps"] == 30
    assert forecast["seconds"] > 30 * forecast["step_s"]  # a validation comes on top
    assert "forecast: 30 steps of" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_a_training_begins_from_the_weights_of_another(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = {"weights": str(tmp_path / "w.pt")}
    config = write_experiment(home / "tuned.yaml", training={"total_steps": 1, "batch_size": 1, "start": start})
    torch.manual_seed(7)
    given = UNetConfig(channels=(4, 8)).build(1, PHANTOM_LABELS.channels).state_dict()
    torch.save(given, tmp_path / "w.pt")
    study = with_digests(open_study(read_experiment(config), home))
    assert study.experiment.training.start is not None
    assert study.experiment.training.start.sha256 == file_digest(tmp_path / "w.pt")
    begun, resumed = (
        build_training(study, tmp_path, torch.device("cpu"), Console(), pretrained=pretrained)
        for pretrained in (True, False)
    )
    assert all(torch.equal(value, given[name]) for name, value in begun.network.state_dict().items())
    assert not all(torch.equal(value, given[name]) for name, value in resumed.network.state_dict().items())
    assert f"begins from {len(given)} of {len(given)} tensors of {tmp_path / 'w.pt'}" in capsys.readouterr().out
