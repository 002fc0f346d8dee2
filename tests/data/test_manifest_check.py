"""The preflight finds each fault, tells all of them, and has nothing to say of sound data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from PIL import Image

from medseg.data.label_form import label_form_problem
from medseg.data.manifest import Manifest, read_manifest
from medseg.data.manifest_build.assemble import BuildOptions, build_manifest
from medseg.data.manifest_check import CheckReport, check_manifest

REPOSITORY = Path(__file__).resolve().parents[2]


def _save(path: Path, array: np.ndarray, spacing: float = 2.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, np.diag([spacing, spacing, spacing, 1.0])), path)


def _box() -> np.ndarray:
    label = np.zeros((6, 6, 6), np.uint8)
    label[1:3, 1:3, 1:3] = 1
    return label


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for number in range(4):
        image = np.random.default_rng(number).integers(0, 100, (6, 6, 6)).astype(np.int16)
        _save(tmp_path / "images" / f"c{number}.nii.gz", image)
        _save(tmp_path / "labels" / f"c{number}.nii.gz", _box())
    return tmp_path


@pytest.fixture
def manifest(root: Path) -> Manifest:
    return build_manifest(root, None, BuildOptions(folds=2)).manifest


def _told(report: CheckReport) -> list[tuple[str, str, str]]:
    return [(one.severity, one.case, one.file) for one in report.findings]


def test_sound_data_pass_with_their_facts(root: Path, manifest: Manifest) -> None:
    report = check_manifest(manifest, root)
    assert report.findings == ()
    facts = report.facts[0]
    assert (facts.shape, facts.spacing, facts.unit, facts.orientation) == ((6, 6, 6), (2.0, 2.0, 2.0), "mm", "RAS")
    assert facts.labels == {"label_1": pytest.approx(8 * 8 / 1000)}
    assert 0 <= facts.intensity[0] < facts.intensity[1] < 100


def _remove(root: Path) -> None:
    (root / "images" / "c1.nii.gz").unlink()


def _cut(root: Path) -> None:
    path = root / "images" / "c1.nii.gz"
    path.write_bytes(path.read_bytes()[:100])


def _change(root: Path) -> None:
    _save(root / "images" / "c1.nii.gz", np.arange(216, dtype=np.int16).reshape(6, 6, 6))


def _infinite(root: Path) -> None:
    image = np.ones((6, 6, 6), np.float32)
    image[0, 0, 0] = np.inf
    _save(root / "images" / "c1.nii.gz", image)


def _other_value(root: Path) -> None:
    _save(root / "labels" / "c1.nii.gz", _box() * 3)


def _other_grid(root: Path) -> None:
    _save(root / "labels" / "c1.nii.gz", _box(), spacing=2.5)


def _other_shape(root: Path) -> None:
    _save(root / "labels" / "c1.nii.gz", _box()[:5])


def _blurred(root: Path) -> None:
    _save(root / "labels" / "c1.nii.gz", _box() * np.float32(0.7))


def _one_hot(root: Path) -> None:
    _save(root / "labels" / "c1.nii.gz", np.stack([1 - _box(), _box()], axis=-1))


@pytest.mark.parametrize(
    ("spoil", "folder", "message"),
    [
        (_remove, "images", "is not in"),
        (_cut, "images", "c1.nii.gz"),
        (_change, "images", "changed since the manifest was written"),
        (_infinite, "images", "infinite"),
        (_other_value, "labels", "label values 3"),
        (_other_grid, "labels", "not on the grid"),
        (_other_shape, "labels", "5 x 6 x 6"),
        (_blurred, "labels", "interpolated"),
        (_one_hot, "labels", "one-hot"),
    ],
)
def test_each_fault_is_an_error_of_its_file(
    root: Path, manifest: Manifest, spoil: Callable[[Path], None], folder: str, message: str
) -> None:
    spoil(root)
    report = check_manifest(manifest, root)
    assert {(one.case, one.file) for one in report.errors} == {("c1", f"{folder}/c1.nii.gz")}
    assert message in " ".join(one.message for one in report.errors)


def test_all_faults_are_told(root: Path, manifest: Manifest) -> None:
    (root / "images" / "c0.nii.gz").unlink()
    _blurred(root)
    (root / "labels" / "c2.nii.gz").write_bytes(b"")
    assert {case for _, case, _ in _told(check_manifest(manifest, root))} == {"c0", "c1", "c2"}


def test_constant_image_and_empty_label_are_warnings(root: Path) -> None:
    _save(root / "images" / "c1.nii.gz", np.full((6, 6, 6), 5, np.int16))
    _save(root / "labels" / "c1.nii.gz", np.zeros((6, 6, 6), np.uint8))
    manifest = build_manifest(root, None, BuildOptions(folds=2)).manifest
    report = check_manifest(manifest, root)
    assert [one.message.split(":")[0] for one in report.findings] == ["is constant", "is empty"]
    assert report.errors == ()


def test_one_image_in_two_folds_is_an_error_and_in_one_a_warning(root: Path, manifest: Manifest) -> None:
    (root / "images" / "c1.nii.gz").write_bytes((root / "images" / "c0.nii.gz").read_bytes())
    digests = manifest.case("c0").image_digests
    for folds, severity in (((0, 1), "error"), ((0, 0), "warning")):
        cases = [replace(case, fold=fold) for case, fold in zip(manifest.cases, (*folds, 0, 1), strict=True)]
        cases[1] = replace(cases[1], image_digests=digests)
        report = check_manifest(replace(manifest, cases=tuple(cases)), root)
        assert _told(report) == [(severity, "c1", "images/c1.nii.gz")]
        assert "same image as case c0" in report.findings[0].message


def test_absent_digest_is_a_warning(root: Path, manifest: Manifest) -> None:
    case = replace(manifest.cases[0], image_digests=(None,))
    report = check_manifest(replace(manifest, cases=(case,)), root)
    assert _told(report) == [("warning", "c0", "images/c0.nii.gz")]


class TestLabelForm:
    def test_smooth_edges_are_told_from_many_structures(self) -> None:
        rows, columns = np.indices((64, 64))
        disc = np.clip(128 + 12.7 * (20 - np.hypot(rows - 32, columns - 32)), 0, 255).astype(np.uint8)
        blocks = (rows // 8 * 8 + columns // 8).astype(np.uint8)
        assert label_form_problem(blocks[None]) is None
        assert "lie along edges only" in str(label_form_problem(disc[None]))

    def test_float_noise_is_no_interpolation(self) -> None:
        assert label_form_problem(_box()[None].astype(np.float32) + np.float32(1e-6)) is None

    def test_negative_values_are_told(self) -> None:
        assert "negative value -1" in str(label_form_problem(_box()[None].astype(np.int8) - np.int8(1)))

    def test_colours_are_told(self, root: Path, manifest: Manifest) -> None:
        assert "colours" in str(label_form_problem(np.stack([_box() * 3, _box() * 9, _box()])))

    def test_coloured_picture_is_an_error(self, tmp_path: Path) -> None:
        for name in "ab":
            for folder in ("images", "labels"):
                (tmp_path / folder).mkdir(exist_ok=True)
                grey = np.random.default_rng(ord(name)).integers(0, 2, (8, 8)).astype(np.uint8)
                Image.fromarray(grey).save(tmp_path / folder / f"{name}.png")
        manifest = build_manifest(tmp_path, None, BuildOptions(folds=2)).manifest
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "labels" / "a.png")
        errors = check_manifest(manifest, tmp_path).errors
        assert [(one.case, one.file) for one in errors] == [("a", "labels/a.png")]
        assert "colour" in errors[0].message


@pytest.mark.real
def test_shipped_hippocampus_manifest_fits_the_data(real_data: Path) -> None:
    manifest = read_manifest(REPOSITORY / "data_manifests" / "hippocampus")
    report = check_manifest(manifest, real_data / "hippocampus")
    assert report.findings == ()
    assert len(report.facts) == 208
    assert all(facts.spacing == (1.0, 1.0, 1.0) for facts in report.facts)


@pytest.mark.real
def test_manifest_of_other_data_names_the_absent_files(real_data: Path) -> None:
    manifest = read_manifest(REPOSITORY / "data_manifests" / "hippocampus")
    report = check_manifest(manifest, real_data / "hippocampus_quirks")
    absent = {one.file for one in report.errors}
    assert "images/hippocampus_001.nii.gz" in absent
    assert "images/hippocampus_156.nii.gz" not in absent
