"""What a study hands to the parts of a training run."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medseg.data.dataset import Case, DatasetInfo
from medseg.data.manifest import Manifest, write_manifest
from medseg.data.phantoms import PHANTOM_LABELS, phantom
from medseg.experiment import ExperimentConfig
from medseg.io import write_nifti
from medseg.losses import CrossEntropyConfig
from medseg.networks import UNetConfig
from medseg.networks.tensor_files import file_digest
from pipelines.console import Console
from pipelines.study import build_training, open_study, with_digests
from pipelines.train import train_experiment

SHAPE = (16, 20, 16)


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three phantoms; the last one validates."""
    folder, cases = tmp_path_factory.mktemp("study"), []
    for number in range(3):
        image, label = phantom(number, SHAPE)
        paths = f"image{number}.nii.gz", f"label{number}.nii.gz"
        write_nifti(image, folder / paths[0])
        write_nifti(label, folder / paths[1])
        cases.append(Case(f"p{number}", f"p{number}", int(number < 2), paths[:1], paths[1]))
    dataset = DatasetInfo(
        name="phantoms", version="1", licence="CC0-1.0", source="generated", channels=("MR",), labels=PHANTOM_LABELS
    )
    write_manifest(Manifest(dataset, tuple(cases), folder), folder)
    return folder


def test_the_loss_weighs_labels_by_the_voxels_of_the_training_cases_alone(manifest: Path, tmp_path: Path) -> None:
    content: dict[str, Any] = {
        "name": "weighed",
        "data": {"manifest": str(manifest), "fold": 0},
        "patch": {"size": [16, 16, 16]},
        "network": {"name": "unet", "channels": [4, 8]},
        "loss": {"name": "cross_entropy", "weights": "inverse_frequency"},
        "training": {"total_steps": 1, "batch_size": 1, "workers": 0},
    }
    study = open_study(ExperimentConfig.model_validate(content), manifest)
    training = build_training(study, tmp_path, torch.device("cpu"), Console(io.StringIO()))

    label = np.stack([phantom(number, SHAPE)[1].array for number in range(2)])
    shares = [1 / np.count_nonzero(label == value) for value in PHANTOM_LABELS.values]
    by_hand = CrossEntropyConfig(weights=tuple(share / sum(shares) for share in shares)).build(PHANTOM_LABELS)
    torch.manual_seed(0)
    logits, truth = torch.randn(1, 3, *SHAPE), torch.from_numpy(label[:1, None].astype(np.int32))
    assert float(training.loss(logits, truth)) == pytest.approx(float(by_hand(logits, truth)), rel=1e-5)


def test_a_dry_run_forecasts_and_writes_nothing(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content: dict[str, Any] = {
        "name": "dry",
        "data": {"manifest": str(manifest), "fold": 0},
        "patch": {"size": [16, 16, 16]},
        "network": {"name": "unet", "channels": [4, 8]},
        "training": {"total_steps": 30, "batch_size": 1, "workers": 0, "validate_every_epochs": 10},
    }
    experiment = ExperimentConfig.model_validate(content)
    forecast = train_experiment(experiment, manifest, tmp_path / "runs", "cpu", dry_run=True)
    assert forecast["total_steps"] == 30
    assert forecast["seconds"] > 30 * forecast["step_s"]  # a validation comes on top
    assert "forecast: 30 steps of" in capsys.readouterr().out
    assert not (tmp_path / "runs").exists()


def test_a_training_begins_from_the_weights_of_another(
    manifest: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content: dict[str, Any] = {
        "name": "tuned",
        "data": {"manifest": str(manifest), "fold": 0},
        "patch": {"size": [16, 16, 16]},
        "network": {"name": "unet", "channels": [4, 8]},
        "training": {"total_steps": 1, "batch_size": 1, "workers": 0, "start": {"weights": str(tmp_path / "w.pt")}},
    }
    torch.manual_seed(7)
    given = UNetConfig(channels=(4, 8)).build(1, PHANTOM_LABELS.channels).state_dict()
    torch.save(given, tmp_path / "w.pt")
    study = with_digests(open_study(ExperimentConfig.model_validate(content), manifest))
    assert study.experiment.training.start is not None
    assert study.experiment.training.start.sha256 == file_digest(tmp_path / "w.pt")
    begun, resumed = (
        build_training(study, tmp_path, torch.device("cpu"), Console(), pretrained=pretrained)
        for pretrained in (True, False)
    )
    assert all(torch.equal(value, given[name]) for name, value in begun.network.state_dict().items())
    assert not all(torch.equal(value, given[name]) for name, value in resumed.network.state_dict().items())
    assert f"begins from {len(given)} of {len(given)} tensors of {tmp_path / 'w.pt'}" in capsys.readouterr().out
