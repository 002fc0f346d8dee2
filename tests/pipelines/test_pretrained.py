"""A run begins from a pretrained file and writes down which; its model and its resumption never ask for it again."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
import torch

from medseg.errors import ConfigError
from medseg.experiment import read_experiment
from medseg.extras import ZOO
from medseg.trained_model import load_model
from pipelines.console import Console
from pipelines.resume import resume
from pipelines.study import build_training, open_study
from pipelines.train import train
from tests.pipelines.phantom_study import write_experiment, write_phantoms

pytestmark = pytest.mark.skipif(not ZOO.is_installed(), reason="needs the extra 'zoo'")
LEARNING_RATE = 1e-12  # too little to move a weight


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Phantoms in slices, a config with a pretrained encoder, and the encoder's file."""
    from medseg.networks.encoders.smp_encoders import make_encoder

    write_phantoms(tmp_path / "manifest", tmp_path, folds=[0, 1, 0, 1])
    torch.save(make_encoder("resnet18", 3).state_dict(), tmp_path / "encoder.pth")
    network = {"name": "pspnet", "spatial_dims": 2, "encoder": "resnet18", "width": 8}
    write_experiment(
        tmp_path / "pretrained.yaml",
        patch={"size": [16, 24], "slice_axis": 2},
        network={**network, "weights": str(tmp_path / "encoder.pth")},
        training={"total_steps": 2, "optimizer": {"name": "adamw", "learning_rate": LEARNING_RATE}},
        tracking={"name": "none"},
    )
    return tmp_path


def made(home: Path, *assignments: str) -> dict[str, Any]:
    return train(str(home / "pretrained.yaml"), list(assignments), home, home / "runs", "cpu")


def test_a_run_begins_from_the_file_and_its_model_does_without(home: Path) -> None:
    file = home / "encoder.pth"
    rgb, digest = torch.load(file)["conv1.weight"], hashlib.sha256(file.read_bytes()).hexdigest()
    run = made(home)
    file.unlink()

    model = load_model(run["run"])
    network = model.card.experiment.model_dump()["network"]
    assert network["weights_sha256"] == digest
    torch.testing.assert_close(model.weights["encoder.conv1.weight"], rgb.sum(dim=1, keepdim=True))
    model.predictor(torch.device("cpu"))
    assert resume(run["run"], "cpu")["weights_sha256"] == run["weights_sha256"]


def test_a_run_is_not_repeated_with_another_file(home: Path) -> None:
    config = made(home)["run"] / "config.yaml"
    (home / "encoder.pth").write_bytes(b"another")
    with pytest.raises(ConfigError, match="is not the file of weights_sha256"):
        train(str(config), [], home, home / "again", "cpu")


def test_the_caller_says_whether_the_file_is_loaded_and_no_folder_does(home: Path) -> None:
    """A folder that a run left behind is no reason to begin at random, and a missing one none to ask for the file."""
    rgb = torch.load(home / "encoder.pth")["conv1.weight"]
    study = open_study(read_experiment(home / "pretrained.yaml"), home)
    (home / "left" / "checkpoints").mkdir(parents=True)
    for folder, pretrained in (("left", True), ("left", False), ("nowhere", True), ("nowhere", False)):
        if not pretrained:
            (home / "encoder.pth").rename(home / "away.pth")
        training = build_training(
            study, home / folder, torch.device("cpu"), Console(io.StringIO()), pretrained=pretrained
        )
        kernel = training.network.get_parameter("encoder.conv1.weight")
        assert torch.allclose(kernel, rgb.sum(dim=1, keepdim=True)) is pretrained
        if not pretrained:
            (home / "away.pth").rename(home / "encoder.pth")
