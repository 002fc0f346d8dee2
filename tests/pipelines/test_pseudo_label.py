"""Unlabelled cases join the next round where the model is sure, with their provenance, and nowhere else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medseg.config import validate
from medseg.data.cases import read_case
from medseg.data.dataset import Case, DatasetInfo
from medseg.data.manifest import Manifest, read_manifest, write_manifest
from medseg.errors import ConfigError, ManifestError
from medseg.experiment import ExperimentConfig
from medseg.geometry import Geometry
from medseg.io import write_nifti
from medseg.labels import Label, LabelSet
from medseg.reproducibility import weights_digest
from medseg.trained_model import ModelCard, TrainedModel
from medseg.volume import Segmentation, Volume
from pipelines.model_use import ModelUse
from pipelines.pseudo_label import Demands, pseudo_label

BRIGHT = LabelSet(labels=(Label(name="bright", value=1),))
GRID = Geometry.from_spacing((8, 8, 8), (1.0, 1.0, 1.0))


def model(folder: Path) -> Path:
    """One convolution whose logit for `bright` is the image's value, for background 0: what it is sure of is known."""
    experiment = {
        "name": "line",
        "data": {"manifest": "data"},
        "preprocessing": {"intensity": []},
        "patch": {"size": [8, 8, 8]},
        "network": {"name": "unet", "channels": [2, 4]},
        "training": {"total_steps": 1},
        "inference": {"precision": "fp32"},
    }
    config = validate(ExperimentConfig, experiment, "test")
    weights = config.network.build(1, 2).state_dict()
    card: dict[str, Any] = {
        "name": "line",
        "version": "1",
        "medseg_version": "0",
        "experiment": config.model_dump(mode="json"),
        "dataset": dataset().model_dump(mode="json"),
        "manifest_digest": "0" * 64,
        "training_cases": 1,
        "total_steps": 1,
        "weights_sha256": weights_digest(weights),
    }
    return TrainedModel(validate(ModelCard, card, "card"), weights).save(folder / "model")


class Line(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.zeros_like(images), images], dim=1)


def dataset() -> DatasetInfo:
    return DatasetInfo(name="d", version="1", licence="CC0-1.0", source="generated", channels=("MR",), labels=BRIGHT)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A labelled case, a case that the model is sure of but for one voxel, and one that it is not sure of."""
    values = {"known": 5.0, "sure": 5.0, "unsure": 0.5}
    cases = []
    for name, value in values.items():
        image = np.full((1, 8, 8, 8), -5.0, np.float32)
        image[0, 2:6, 2:6, 2:6] = value
        if name == "sure":
            image[0, 2, 2, 2] = 1.0  # a probability of 0.73
        write_nifti(Volume(image, GRID), tmp_path / f"{name}.nii.gz")
        cases.append(Case(name, name, 0, (f"{name}.nii.gz",), None, columns={"site": "A"}))
    label = np.zeros((8, 8, 8), np.uint8)
    label[2:6, 2:6, 2:6] = 1
    write_nifti(Segmentation(label, GRID, BRIGHT), tmp_path / "known_label.nii.gz")
    cases[0] = replace(cases[0], label="known_label.nii.gz")
    write_manifest(Manifest(dataset(), tuple(cases), tmp_path / "manifest"), tmp_path / "manifest")
    return tmp_path


@pytest.fixture(autouse=True)
def known_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(network: torch.nn.Module, state: Mapping[str, torch.Tensor], strict: bool = True) -> None:
        network.forward = Line().forward

    monkeypatch.setattr(torch.nn.Module, "load_state_dict", load)


def labelled(home: Path, **demands: float) -> dict[str, Any]:
    use = ModelUse(model(home), device="cpu")
    return pseudo_label(use, str(home / "manifest"), home, home / "round2", Demands(**demands))


def test_what_the_model_is_sure_of_joins_and_the_rest_is_ignored(home: Path) -> None:
    answer = labelled(home)
    assert answer["labelled"] == ["sure"]
    assert answer["unsure"] == {"unsure": 0.0}
    manifest = read_manifest(home / "round2", home)
    assert [case.id for case in manifest.cases] == ["known", "sure"]
    assert manifest.dataset.labels.ignore == 2
    known, sure = manifest.cases
    assert (known.fold, known.columns) == (0, {"site": "A", "label_source": "truth", "sure_share": "1"})
    assert sure.fold is None  # trained on always, never scored
    assert sure.columns == {"site": "A", "label_source": sure.columns["label_source"], "sure_share": f"{63 / 64:.4f}"}
    assert sure.columns["label_source"].startswith("line 1 (")
    found = read_case(manifest, sure, home, verify=True).label
    assert found is not None
    expected = np.zeros((8, 8, 8), int)
    expected[2:6, 2:6, 2:6] = 1
    expected[2, 2, 2] = 2  # not sure: ignored
    assert np.array_equal(found.array, expected)


def test_demands_decide(home: Path) -> None:
    assert labelled(home, confidence=0.6)["labelled"] == ["sure", "unsure"]  # 0.5 gives a probability of 0.62


def test_what_cannot_be_done_is_refused(home: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    use, manifest = ModelUse(model(home), device="cpu"), read_manifest(home / "manifest", home)
    with pytest.raises(ConfigError, match="lies outside the data root"):
        pseudo_label(use, str(home / "manifest"), home, tmp_path_factory.mktemp("other"), Demands())
    with pytest.raises(ConfigError, match="holds a manifest"):
        pseudo_label(use, str(home / "manifest"), home, home / "manifest", Demands())
    whole = Manifest(manifest.dataset, manifest.cases[:1], home / "whole")
    write_manifest(whole, home / "whole")
    with pytest.raises(ManifestError, match="every case has a label"):
        pseudo_label(use, str(home / "whole"), home, home / "round2", Demands())
    other = dataset().model_copy(update={"labels": LabelSet(labels=(Label(name="dark", value=1),))})
    write_manifest(Manifest(other, manifest.cases, home / "other"), home / "other")
    with pytest.raises(ManifestError, match="its labels are not those of line 1"):
        pseudo_label(use, str(home / "other"), home, home / "round2", Demands())
