"""A case's files become one image and one label on one grid, or an error that names the file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from medseg.data.cases import read_case
from medseg.data.manifest import Case, DatasetInfo, Manifest
from medseg.errors import DataError, GeometryError, LabelError, ManifestError, ReadError
from medseg.geometry import Geometry
from medseg.io import read_image, read_label
from medseg.labels import Label, LabelSet
from medseg.volume import digest

LABELS = LabelSet(labels=(Label(name="box", value=1),))


def _dataset(*channels: str) -> DatasetInfo:
    return DatasetInfo(
        name="phantom", version="1", licence="CC0-1.0", source="made here", channels=channels, labels=LABELS
    )


def _write(path: Path, array: np.ndarray, spacing: float = 1.0, origin: float = 0.0) -> Path:
    affine = np.diag([spacing, spacing, spacing, 1.0])
    affine[:3, 3] = origin
    nibabel.save(nibabel.Nifti1Image(array, affine), path)
    return path


def _ramp(shape: tuple[int, ...], spacing: float = 1.0, origin: float = 0.0) -> np.ndarray:
    """An image whose value is its world coordinate x + 10 y + 100 z: linear, so interpolation keeps it exactly."""
    index = np.moveaxis(np.indices(shape), 0, -1).astype(np.float64) * spacing + origin
    return (index @ [1.0, 10.0, 100.0]).astype(np.float32)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A fine image, a label on its grid, and a coarse image of a larger field of view."""
    _write(tmp_path / "fine.nii.gz", _ramp((8, 8, 8)))
    label = np.zeros((8, 8, 8), np.uint8)
    label[2:5, 2:5, 2:5] = 1
    _write(tmp_path / "label.nii.gz", label)
    _write(tmp_path / "coarse.nii.gz", _ramp((6, 6, 6), 2.0, -1.0), 2.0, -1.0)
    return tmp_path


def _manifest(case: Case, *channels: str) -> Manifest:
    return Manifest(_dataset(*channels), (case,), Path("m"))


def test_image_and_label_are_read(root: Path) -> None:
    case = Case("a", "a", 0, ("fine.nii.gz",), "label.nii.gz")
    data = read_case(_manifest(case, "MR"), case, root)
    assert data.image.array.shape == (1, 8, 8, 8)
    assert data.label is not None
    assert data.label.mask("box").sum() == 27


def test_label_may_be_absent(root: Path) -> None:
    case = Case("a", "a", None, ("fine.nii.gz",), None)
    assert read_case(_manifest(case, "MR"), case, root).label is None


def test_channels_come_onto_the_grid_of_the_first(root: Path) -> None:
    case = Case("a", "a", 0, ("fine.nii.gz", "coarse.nii.gz"), "label.nii.gz")
    data = read_case(_manifest(case, "MR", "PET"), case, root)
    assert data.image.array.shape == (2, 8, 8, 8)
    np.testing.assert_allclose(data.image.array[1], data.image.array[0], atol=1e-3)
    assert data.image.provenance.notes[-1] == "resampled linearly onto MR: PET"


def test_outside_a_channels_field_of_view_is_its_lowest_value(root: Path) -> None:
    _write(root / "small.nii.gz", np.full((4, 8, 8), 7, np.int16))
    case = Case("a", "a", 0, ("fine.nii.gz", "small.nii.gz"), None)
    image = read_case(_manifest(case, "MR", "CT"), case, root).image
    np.testing.assert_array_equal(image.array[1], 7)


def test_channels_of_places_that_do_not_meet_are_refused(root: Path) -> None:
    _write(root / "far.nii.gz", _ramp((4, 4, 4)), origin=500.0)
    case = Case("a", "a", 0, ("fine.nii.gz", "far.nii.gz"), None)
    with pytest.raises(GeometryError, match=r"case a: far\.nii\.gz .* do not meet"):
        read_case(_manifest(case, "MR", "CT"), case, root)


def test_one_file_may_hold_all_channels(root: Path) -> None:
    _write(root / "both.nii.gz", np.stack([np.zeros((8, 8, 8)), np.ones((8, 8, 8))], axis=-1).astype(np.float32))
    case = Case("a", "a", 0, ("both.nii.gz",), "label.nii.gz")
    image = read_case(_manifest(case, "T1", "T2"), case, root).image
    assert image.array.shape == (2, 8, 8, 8)
    assert image.array[1].min() == 1
    with pytest.raises(DataError, match=r"both\.nii\.gz holds 2 channels, not 3"):
        read_case(_manifest(case, "T1", "T2", "FLAIR"), case, root)


@pytest.mark.parametrize("absent", ["fine.nii.gz", "coarse.nii.gz", "label.nii.gz"])
def test_missing_file_is_named(root: Path, absent: str) -> None:
    (root / absent).unlink()
    case = Case("a", "a", 0, ("fine.nii.gz", "coarse.nii.gz"), "label.nii.gz")
    with pytest.raises(ManifestError, match=rf"case a: {absent} is not in"):
        read_case(_manifest(case, "MR", "PET"), case, root)


def test_label_of_another_grid_is_refused_with_both(root: Path) -> None:
    _write(root / "shifted.nii.gz", np.ones((8, 8, 8), np.uint8), origin=3.0)
    case = Case("a", "a", 0, ("fine.nii.gz",), "shifted.nii.gz")
    with pytest.raises(GeometryError, match=r"case a: label shifted.*8 x 8 x 8.*fine.*5\.2 mm apart; resample"):
        read_case(_manifest(case, "MR"), case, root)


def test_unknown_label_value_is_refused(root: Path) -> None:
    _write(root / "label.nii.gz", np.full((8, 8, 8), 9, np.uint8))
    case = Case("a", "a", 0, ("fine.nii.gz",), "label.nii.gz")
    with pytest.raises(LabelError, match="9"):
        read_case(_manifest(case, "MR"), case, root)


def test_damaged_file_is_refused(root: Path) -> None:
    whole = (root / "fine.nii.gz").read_bytes()
    (root / "fine.nii.gz").write_bytes(whole[: len(whole) // 2])
    case = Case("a", "a", 0, ("fine.nii.gz",), None)
    with pytest.raises(ReadError, match="fine"):
        read_case(_manifest(case, "MR"), case, root)


class TestDigests:
    def _digests(self, root: Path) -> tuple[str, str]:
        image, label = read_image(root / "fine.nii.gz"), read_label(root / "label.nii.gz", LABELS)
        return digest(image.array, image.geometry), digest(label.array, label.geometry)

    def test_another_compression_type_or_format_changes_nothing(self, root: Path) -> None:
        before = self._digests(root)
        _write(root / "fine.nii", _ramp((8, 8, 8)).astype(np.float64))
        _write(root / "wide.nii", read_label(root / "label.nii.gz", LABELS).array.astype(np.int32))
        image, label = read_image(root / "fine.nii"), read_label(root / "wide.nii", LABELS)
        assert (digest(image.array, image.geometry), digest(label.array, label.geometry)) == before

    def test_one_voxel_changes_the_digest(self, root: Path) -> None:
        before = self._digests(root)
        changed = _ramp((8, 8, 8))
        changed[0, 0, 0] += 1
        _write(root / "fine.nii.gz", changed)
        after = self._digests(root)
        assert after[0] != before[0]
        assert after[1] == before[1]

    def test_affine_changes_the_digest(self, root: Path) -> None:
        array = _ramp((8, 8, 8))[None]
        grids = [Geometry.from_spacing((8, 8, 8), (size, 1.0, 1.0)) for size in (1.0, 1.001)]
        assert digest(array, grids[0]) != digest(array, grids[1])

    def test_verification_names_case_and_changed_file(self, root: Path) -> None:
        image, label = self._digests(root)
        case = Case("a", "a", 0, ("fine.nii.gz",), "label.nii.gz", (image,), label)
        read_case(_manifest(case, "MR"), case, root, verify=True)
        _write(root / "label.nii.gz", np.ones((8, 8, 8), np.uint8))
        read_case(_manifest(case, "MR"), case, root)
        with pytest.raises(ManifestError, match=r"case a: voxels or affine of label\.nii\.gz changed"):
            read_case(_manifest(case, "MR"), case, root, verify=True)

    def test_verification_says_how_a_changed_label_does_not_fit(self, root: Path) -> None:
        image, label = self._digests(root)
        case = Case("a", "a", 0, ("fine.nii.gz",), "label.nii.gz", (image,), label)
        _write(root / "label.nii.gz", np.ones((8, 8, 8), np.uint8), origin=3.0)
        with pytest.raises(GeometryError, match=r"5\.2 mm apart; resample"):
            read_case(_manifest(case, "MR"), case, root, verify=True)


def test_a_label_says_what_was_looked_for_and_holds_nothing_else(root: Path) -> None:
    labels = LabelSet(labels=(Label(name="box", value=1), Label(name="ball", value=2)))
    dataset = _dataset("MR").model_copy(update={"labels": labels})
    case = Case("a", "a", 0, ("fine.nii.gz",), "label.nii.gz", annotated=("box",))
    label = read_case(Manifest(dataset, (case,), Path("m")), case, root).label
    assert label is not None
    assert label.annotated == ("box",)
    wrong = replace(case, annotated=("ball",))
    with pytest.raises(ManifestError, match=r"case a: label\.nii\.gz holds box, which `annotated` in"):
        read_case(Manifest(dataset, (wrong,), Path("m")), wrong, root)
