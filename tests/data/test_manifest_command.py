"""The verbs `medseg manifest build` and `check`: what they write, print and answer."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines.manifest import app


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "livers"
    for number in range(3):
        image = np.random.default_rng(number).integers(0, 100, (4, 4, 4)).astype(np.int16)
        label = np.eye(4, dtype=np.uint8)[..., None] * np.ones(4, np.uint8)
        for name, array in (("images", image), ("labels", label)):
            (folder / name).mkdir(parents=True, exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / name / f"c{number}.nii.gz")
    return folder


def test_build_then_check_finds_nothing(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "manifest"
    built = CliRunner().invoke(app, ["build", str(source), "--output", str(output), "--folds", "3", "--json"])
    assert built.exit_code == 0
    assert json.loads(built.stdout)["cases"] == 3
    assert {path.name for path in output.iterdir()} == {"dataset.yaml", "cases.csv"}
    checked = CliRunner().invoke(app, ["check", str(output), "--data-root", str(source)])
    assert checked.exit_code == 0
    assert "3 cases read, 0 errors, 0 warnings" in checked.stdout


def test_check_that_finds_errors_prints_them_and_fails(source: Path, tmp_path: Path) -> None:
    output = tmp_path / "manifest"
    CliRunner().invoke(app, ["build", str(source), "--output", str(output), "--folds", "3"])
    (source / "labels" / "c1.nii.gz").unlink()
    checked = CliRunner().invoke(app, ["check", str(output), "--data-root", str(source), "--json"])
    assert checked.exit_code == 1
    findings = json.loads(checked.stdout)["findings"]
    assert [(one["case"], one["severity"]) for one in findings] == [("c1", "error")]
    assert "1 errors in 1 of 3 cases" in checked.stderr


def test_unmatched_files_fail_and_write_nothing(source: Path, tmp_path: Path) -> None:
    (source / "labels" / "c1.nii.gz").unlink()
    output = tmp_path / "manifest"
    refused = CliRunner().invoke(app, ["build", str(source), "--output", str(output)])
    assert refused.exit_code == 1
    assert "images/c1.nii.gz has no label" in refused.stderr
    assert not output.exists()
    skipped = CliRunner().invoke(
        app, ["build", str(source), "--output", str(output), "--skip-unmatched", "--folds", "2"]
    )
    assert skipped.exit_code == 0
    assert "skipped: images/c1.nii.gz has no label" in skipped.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--layout", "folder"], "did you mean 'folders'"),
        (["--set", "label_sufix=_seg"], "did you mean 'label_suffix'"),
    ],
)
def test_wrong_setting_is_a_mistake_of_use(source: Path, arguments: list[str], expected: str) -> None:
    refused = CliRunner().invoke(app, ["build", str(source), *arguments])
    assert refused.exit_code == 2
    assert expected in refused.stderr


def test_a_manifest_completed_by_hand_survives_another_build(source: Path, tmp_path: Path) -> None:
    arguments = ["build", str(source), "--output", str(tmp_path / "manifest"), "--folds", "3"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    path = tmp_path / "manifest" / "dataset.yaml"
    path.write_text(path.read_text().replace("licence: unknown", "licence: CC0-1.0"))
    refused = CliRunner().invoke(app, arguments)
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert "CC0-1.0" in path.read_text()
    assert CliRunner().invoke(app, [*arguments, "--force"]).exit_code == 0
    assert "CC0-1.0" not in path.read_text()


def test_a_patient_in_train_and_val_is_refused_before_writing(source: Path, tmp_path: Path) -> None:
    for name in ("images", "labels"):
        for part in ("train", "val"):
            (source / name / part).mkdir()
        (source / name / "c0.nii.gz").rename(source / name / "train" / "p1_a.nii.gz")
        (source / name / "c1.nii.gz").rename(source / name / "val" / "p1_b.nii.gz")
        (source / name / "c2.nii.gz").rename(source / name / "train" / "p2_a.nii.gz")
    output = tmp_path / "manifest"
    refused = CliRunner().invoke(app, ["build", str(source), "--output", str(output), "--set", "patient=(p.)_"])
    assert refused.exit_code == 1
    assert "patient 'p1' is in fold 0 (case p1_b), but in no fold" in refused.stderr
    assert not output.exists()


def test_folds_below_0_are_a_mistake_of_use(source: Path, tmp_path: Path) -> None:
    refused = CliRunner().invoke(app, ["build", str(source), "--output", str(tmp_path / "m"), "--folds", "-3"])
    assert refused.exit_code == 2
    assert "--folds" in refused.stderr
    assert not (tmp_path / "m").exists()
