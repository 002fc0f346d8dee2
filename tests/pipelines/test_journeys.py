"""The journeys themselves, on phantoms and on real studies: train, resume, evaluate, infer, demo."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK
import yaml
from mlflow import MlflowClient
from PIL import Image

from medseg.data.phantoms import phantom
from medseg.errors import ConfigError, DataError, ManifestError, TrainingError
from medseg.io import read_label
from medseg.io.dicom import SeriesDescription, SeriesRule, write_series
from medseg.trained_model import load_model
from pipelines.evaluate import evaluate
from pipelines.infer import infer
from pipelines.model_use import ModelUse
from pipelines.resume import resume
from pipelines.train import train
from tests.pipelines.phantom_study import write_experiment, write_phantoms


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data, manifest and config, and one run made from them."""
    folder = tmp_path_factory.mktemp("journey")
    write_phantoms(folder / "manifest", folder / "data", folds=[0, 1, 2, 0, 1, 2])
    write_experiment(
        folder / "small.yaml",
        patch={"size": [16, 24, 16]},
        network={"channels": [8, 16]},
        training={"total_steps": 6, "validate_every_epochs": 2},
    )
    train(str(folder / "small.yaml"), [], folder / "data", folder / "runs", "cpu")
    return folder


@pytest.fixture(scope="module")
def run(home: Path) -> Path:
    return next(path for path in (home / "runs").iterdir() if path.name.startswith("small-"))


def test_a_run_leaves_model_scores_pictures_and_config(run: Path) -> None:
    summary = json.loads((run / "evaluation" / "summary.json").read_text())
    assert summary["cases"]["scored"] == 2
    assert len((run / "evaluation" / "scores.csv").read_text().splitlines()) == 1 + 2 * 3  # two labels and a region
    pictures = sorted((run / "evaluation").glob("worst_*.png"))
    assert len(pictures) == 2
    assert min(Image.open(pictures[0]).size) >= 256
    assert yaml.safe_load((run / "config.yaml").read_text())["training"]["total_steps"] == 6
    assert load_model(run).card.manifest_digest


def test_a_run_is_recorded_in_mlflow(home: Path, run: Path) -> None:
    client = MlflowClient(f"sqlite:///{home / 'runs' / 'mlflow.db'}")
    recorded = client.get_run(json.loads((run / "run.json").read_text())["tracker_run"])
    assert recorded.info.status == "FINISHED"
    assert recorded.data.params["network.name"] == "unet"
    assert recorded.data.params["total_steps"] == "6"
    assert {"train/loss", "validation/score", "final/dice/foreground"} <= set(recorded.data.metrics)
    assert recorded.data.tags["weights_sha256"] == load_model(run).card.weights_sha256
    names = {entry.path for entry in client.list_artifacts(recorded.info.run_id)}
    assert {"config.yaml", "environment.json", "evaluation", "manifest", "model", "pictures"} <= names


def test_the_same_config_gives_the_same_weights(home: Path, run: Path) -> None:
    again = train(str(home / "small.yaml"), ["tracking.name=none"], home / "data", home / "again", "cpu")
    assert again["weights_sha256"] == load_model(run).card.weights_sha256


def test_a_minute_budget_becomes_steps(home: Path) -> None:
    settings = ["training.total_steps=null", "training.max_minutes=0.01", "tracking.name=none"]
    made = train(str(home / "small.yaml"), settings, home / "data", home / "budget", "cpu")
    assert made["steps"] == 1  # the process is older than that: the least there is


def test_resuming_a_finished_run_changes_nothing(home: Path, run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "runs" / run.name
    shutil.copytree(run, copy)
    shutil.copy(home / "runs" / "mlflow.db", tmp_path / "runs" / "mlflow.db")
    assert resume(copy, "cpu")["weights_sha256"] == load_model(run).card.weights_sha256


def test_resuming_on_other_data_is_refused(home: Path, run: Path, tmp_path: Path) -> None:
    copy = tmp_path / run.name
    shutil.copytree(run, copy)
    facts = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**facts, "manifest_digest": "0" * 64}))
    with pytest.raises(TrainingError, match="manifest has changed"):
        resume(copy, "cpu")


def test_evaluate_repeats_the_scores_of_the_run(home: Path, run: Path, tmp_path: Path) -> None:
    found = evaluate(ModelUse(run, device="cpu"), None, None, home / "data", tmp_path / "scores")
    made = json.loads((run / "evaluation" / "summary.json").read_text())
    assert json.loads((tmp_path / "scores" / "summary.json").read_text()) == made
    assert found["mean_foreground_dice"] is not None


@pytest.mark.parametrize(("fold", "folder"), [(None, "evaluation-phantoms-fold0"), (2, "evaluation-phantoms-fold2")])
def test_evaluate_says_where_the_model_saw_the_cases_in_training(
    fold: int | None, folder: str, home: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fold 0 validated, so folds 1 and 2 were trained on; each fold has a folder of its own beside the model."""
    found = evaluate(ModelUse(run, device="cpu"), None, fold, home / "data", None)
    assert found["cases"]["scored"] == 2
    assert found["seen_in_training"] is (fold == 2)
    assert found["folder"] == run / folder
    assert json.loads((run / folder / "evaluation.json").read_text())["seen_in_training"] is (fold == 2)
    assert ("warning: the model was trained on" in capsys.readouterr().out) is (fold == 2)


def copied_manifest(home: Path, folder: Path, old: str, new: str) -> Path:
    shutil.copytree(home / "manifest", folder)
    text = (folder / "dataset.yaml").read_text()
    assert old in text
    (folder / "dataset.yaml").write_text(text.replace(old, new))
    return folder


def test_evaluate_does_not_know_what_another_manifest_shares_with_the_models(
    home: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = copied_manifest(home, tmp_path / "manifest", "name: phantoms", "name: others")
    found = evaluate(ModelUse(run, device="cpu"), str(other), None, home / "data", tmp_path / "scores")
    assert found["cases"]["scored"] == 6
    assert found["seen_in_training"] is None
    assert "warning: the model was trained on another manifest" in capsys.readouterr().out


def test_evaluate_refuses_labels_of_other_names(home: Path, run: Path, tmp_path: Path) -> None:
    other = copied_manifest(home, tmp_path / "manifest", "tail", "rear")
    with pytest.raises(ManifestError, match=r"head, rear.* not the model's .*head, tail"):
        evaluate(ModelUse(run, device="cpu"), str(other), None, home / "data", tmp_path / "scores")


def test_evaluate_leaves_no_picture_of_an_earlier_evaluation(home: Path, run: Path, tmp_path: Path) -> None:
    (tmp_path / "worst_3_gone.png").write_bytes(b"old")
    (tmp_path / "mine.png").write_bytes(b"a person's own")
    evaluate(ModelUse(run, device="cpu"), None, 0, home / "data", tmp_path)
    pictures = sorted(path.name for path in tmp_path.glob("*.png"))
    assert pictures[0] == "mine.png"
    assert [name.split("_")[1] for name in pictures[1:]] == ["1", "2"]


def test_evaluate_does_the_postprocessing_that_it_is_told(home: Path, run: Path, tmp_path: Path) -> None:
    nothing_left = "postprocessing=[{name: remove_small, minimum_mm3: 1.0e+9}]"
    found = evaluate(ModelUse(run, (nothing_left,), "cpu"), None, None, home / "data", tmp_path)
    assert found["mean_foreground_dice"] == 0


def test_infer_writes_nifti_on_the_source_grid(home: Path, run: Path, tmp_path: Path) -> None:
    record = infer(ModelUse(run, device="cpu"), [home / "data" / "images"], tmp_path, ["nifti"], SeriesRule())
    assert len(record["cases"]) == 6
    source: Any = nibabel.load(home / "data" / "images" / "p3.nii.gz")
    result: Any = nibabel.load(tmp_path / "p3_label.nii.gz")
    assert result.shape == source.shape
    assert np.allclose(result.affine, source.affine, atol=1e-4)
    assert load_model(run).card.name in result.header["descrip"].item().decode()


def test_infer_takes_the_series_that_the_rule_picks_and_writes_both_formats(run: Path, tmp_path: Path) -> None:
    image, _ = phantom(77, (20, 26, 18))
    write_series(image, tmp_path / "study" / "a", SeriesDescription(description="T1 phantom", study="s"))
    write_series(image, tmp_path / "study" / "b", SeriesDescription(description="other", study="s", number=2))
    formats = ["nifti", "dicom-seg"]
    use = ModelUse(run, device="cpu")
    infer(use, [tmp_path / "study"], tmp_path / "out", formats, SeriesRule(description="t1*", min_slices=5))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "inference.json",
        "study_label.nii.gz",
        "study_seg.dcm",
    ]
    with pytest.raises(DataError, match="other"):
        infer(use, [tmp_path / "study"], tmp_path / "none", formats, SeriesRule())


def test_one_bad_input_stops_no_other(home: Path, run: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.nii.gz").write_bytes(b"nothing")
    inputs = [home / "data" / "images" / "p0.nii.gz", tmp_path / "bad.nii.gz", home / "data" / "images" / "p1.nii.gz"]
    with pytest.raises(DataError, match=r"1 of 3 inputs .*bad\.nii\.gz"):
        infer(ModelUse(run, device="cpu"), inputs, tmp_path / "out", ["nifti"], SeriesRule())
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == ["inference.json", "p0_label.nii.gz", "p1_label.nii.gz"]


def test_dicom_seg_of_a_nifti_input_is_refused_before_any_work(home: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs a DICOM series"):
        infer(ModelUse(run), [home / "data" / "images"], tmp_path / "out", ["dicom-seg"], SeriesRule())
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_demo_runs_from_start_to_end(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "from pipelines.command import main; main()", "demo", "--output", "demo", "--json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=600)
    result = json.loads(done.stdout)
    assert result["dicom_study_dice"] > 0.8
    assert {Path(file).suffix for file in result["inference"]["cases"][0]["files"]} == {".gz", ".dcm"}
    assert "where to look" in done.stderr


@pytest.fixture(scope="module")
def hippocampus_model(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model good enough to find a hippocampus, in well under a minute of training."""
    settings = ["network.channels=[8,16,32,64]", "training.max_minutes=null", "training.total_steps=150"]
    settings += ["tracking.name=none", "training.workers=0"]
    made = train("hippocampus_unet3d", settings, real_data / "hippocampus", tmp_path_factory.mktemp("runs"), "cpu")
    assert made["evaluation"]["mean_foreground_dice"] > 0.6
    return Path(made["model"])


@pytest.mark.slow
@pytest.mark.real
def test_real_studies_become_seg_and_nifti_that_agree(hippocampus_model: Path, real_data: Path, tmp_path: Path) -> None:
    """dcmqi reads the SEG: voxel for voxel the NIfTI in patient space, anterior in front of posterior."""
    program = shutil.which("segimage2itkimage", path=str(Path(sys.executable).parent))
    if program is None:
        pytest.skip("dcmqi is not installed; pip install -e '.[dev]'")
    studies = sorted(path for path in (real_data / "dicom_hippocampus").iterdir() if path.is_dir())
    formats = ["nifti", "dicom-seg"]
    infer(ModelUse(hippocampus_model, device="cpu"), studies, tmp_path, formats, SeriesRule(description="*HippoCrop*"))
    assert len(studies) == 2
    labels = load_model(hippocampus_model).card.dataset.labels
    for study in studies:
        nifti = read_label(tmp_path / f"{study.name}_label.nii.gz", labels)
        folder = tmp_path / f"{study.name}_dcmqi"
        folder.mkdir()
        command = [program, "--inputDICOM", str(tmp_path / f"{study.name}_seg.dcm"), "--outputDirectory", str(folder)]
        subprocess.run(command, check=True, capture_output=True)
        centroids = []
        for number, name in enumerate(labels.names, start=1):
            image = SimpleITK.ReadImage(str(folder / f"{number}.nrrd"))
            index_xyz = np.argwhere(SimpleITK.GetArrayFromImage(image))[:, ::-1]
            directions = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
            ras = (index_xyz @ directions.T + np.array(image.GetOrigin())) * [-1, -1, 1]
            found = np.zeros(nifti.geometry.shape, dtype=bool)
            found[tuple(np.rint(nifti.geometry.index(ras)).astype(int).T)] = True
            assert found.any()
            assert np.array_equal(found, nifti.mask(name))
            centroids.append(ras.mean(axis=0))
        assert centroids[0][1] > centroids[1][1]  # RAS: the second axis points to the front
