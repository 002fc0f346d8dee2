"""Every case is scored by the network that never saw it, and what is done is not done again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medseg.data.manifest import read_manifest
from medseg.data.phantoms import PHANTOM_LABELS
from medseg.errors import ConfigError, ManifestError
from medseg.evaluation import score
from medseg.io import read_image, read_label
from medseg.metrics import MetricsConfig
from medseg.trained_model import load_model
from pipelines.cross_validate import cross_validate, parts_of
from pipelines.model_use import ModelUse
from pipelines.scoring import kept_prediction
from tests.pipelines.phantom_study import write_experiment, write_phantoms

SITES = ("north", "south/east", "north", "south/east")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four phantoms in two folds and two sites, their manifest, and a config."""
    folder = tmp_path_factory.mktemp("cv")
    write_phantoms(folder / "manifest", folder, folds=[0, 0, 1, 1], shape=(18, 22, 16), sites=SITES)
    write_experiment(folder / "tiny.yaml", training={"total_steps": 25}, inference={"precision": "fp32"})
    return folder


@pytest.fixture(scope="module")
def done(home: Path) -> dict[str, Any]:
    return cross_validate(str(home / "tiny.yaml"), [], home, home / "out", parallel=2, device="cpu")


@pytest.mark.slow
def test_each_case_is_scored_by_the_network_that_never_saw_it(home: Path, done: dict[str, Any]) -> None:
    assert done["out_of_fold"]["cases"]["scored"] == 4
    expected = []
    for number in range(4):
        run = done["runs"][f"fold_{number // 2}"]
        model, segment = ModelUse(run, device="cpu").open()
        assert model.card.experiment.data.fold == number // 2
        image = read_image(home / "images" / f"p{number}.nii.gz")
        truth = read_label(home / "labels" / f"p{number}.nii.gz", PHANTOM_LABELS)
        found = segment(image)
        assert np.array_equal(kept_prediction(run / "predictions", f"p{number}", truth).array, found.array)
        expected.append(score(f"p{number}", found, truth, MetricsConfig(distances=False)).foreground())
    defined = [value for value in expected if value is not None]
    assert done["out_of_fold"]["mean_foreground_dice"] == pytest.approx(np.mean(defined))
    assert (home / "out" / "evaluation" / "scores.csv").is_file()
    low, high = done["out_of_fold"]["foreground"]["metrics"]["dice"]["interval"]
    assert low <= np.mean(defined) <= high


@pytest.mark.slow
def test_the_networks_are_one_model_with_the_steps_that_help(home: Path, done: dict[str, Any]) -> None:
    joined = load_model(home / "out")
    members = [load_model(run) for run in done["runs"].values()]
    assert joined.card.ensemble is not None
    assert joined.card.ensemble.members == tuple(one.card.title for one in members)
    kept = [one["step"] for one in done["postprocessing"] if one["kept"]]
    assert [step.model_dump(mode="json") for step in joined.card.experiment.postprocessing] == kept
    assert all(
        one["kept"] == (one["gain"] is not None and one["gain"] > 0) or not one["kept"]
        for one in done["postprocessing"]
    )
    array = read_image(home / "images" / "p0.nii.gz").array.astype(np.float32)
    import torch

    logits = [one.predictor(torch.device("cpu")).logits(array) for one in (*members, joined)]
    assert np.allclose(np.mean(logits[:2], axis=0), logits[2], atol=1e-4)


@pytest.mark.slow
def test_the_records_of_the_parts_lie_below_one(home: Path, done: dict[str, Any]) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{home / 'out'}/mlflow.db")
    parent = json.loads((home / "out" / "cross_validation.json").read_text())["tracker_run"]
    runs = client.search_runs([client.get_run(parent).info.experiment_id])
    below = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent]
    assert len(below) == 2
    assert {run.info.status for run in runs} == {"FINISHED"}
    metrics = client.get_run(parent).data.metrics
    assert metrics["out_of_fold/dice/foreground"] == pytest.approx(done["out_of_fold"]["mean_foreground_dice"])


@pytest.mark.slow
def test_what_is_done_is_kept_and_the_rest_goes_on(
    home: Path, done: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = done["runs"]["fold_1"]
    for path in (run / "model").iterdir():
        path.unlink()
    (run / "model").rmdir()  # as if it had been killed at its last step
    again = cross_validate(str(home / "tiny.yaml"), [], home, home / "out", device="cpu")
    told = capsys.readouterr().out
    assert "fold 0: done before" in told
    assert "fold 1: goes on" in told
    assert again["runs"] == done["runs"]
    assert again["out_of_fold"]["mean_foreground_dice"] == done["out_of_fold"]["mean_foreground_dice"]
    with pytest.raises(ConfigError, match="holds another cross-validation"):
        cross_validate(str(home / "tiny.yaml"), ["seed=1"], home, home / "out", device="cpu")


def test_parts_are_folds_or_the_values_of_a_column(home: Path) -> None:
    manifest = read_manifest(home / "manifest", home)
    assert [part.assignments[0] for part in parts_of(manifest, None)] == ["data.fold=0", "data.fold=1"]
    parts = parts_of(manifest, "site")
    assert [part.name for part in parts] == ["00_north", "01_south_east"]
    assert json.loads(parts[1].assignments[0].removeprefix("data.leave_out=")) == {
        "column": "site",
        "value": "south/east",
    }
    with pytest.raises(ManifestError, match="has 0 parts to leave out; give --by a column with several values"):
        parts_of(manifest, "scanner")
