"""What is written reads back the same, by medseg, nibabel and SimpleITK."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK

from medseg.errors import ConfigError, WriteError
from medseg.geometry import Geometry
from medseg.io import read_image, read_label, write_nifti
from medseg.labels import Label, LabelSet
from medseg.volume import Provenance, Segmentation, Volume

OBLIQUE = np.array([[0.0, -1.9, 0.3, 12], [1.4, 0, 0, -20], [0, 0.2, 2.9, 30], [0, 0, 0, 1]])
OBLIQUE[:3, 1:3] = np.linalg.qr(OBLIQUE[:3, 1:3])[0] * [2.0, 3.0]  # at right angles, 1.4 x 2 x 3 mm
EXCLUSIVE = LabelSet(labels=(Label(name="a", value=1), Label(name="b", value=2)))
OVERLAPPING = LabelSet(kind="overlapping", labels=EXCLUSIVE.labels)


def load(path: Path) -> Any:
    return nibabel.load(path)


def phantom_label(affine: np.ndarray = OBLIQUE) -> Segmentation:
    array = np.zeros((7, 6, 5), np.int64)
    array[4, 2, 3] = 2
    array[0, 1, 2] = 1
    return Segmentation(array, Geometry(array.shape, affine), EXCLUSIVE, Provenance(made_by="unet 3, digest 12ab"))


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_marked_voxel_lies_at_the_same_place_for_simpleitk(tmp_path: Path, name: str) -> None:
    label = phantom_label()
    image = SimpleITK.ReadImage(str(write_nifti(label, tmp_path / name)))
    index = [int(part[0]) for part in np.nonzero(label.array == 2)]
    assert image.GetPixel(*index) == 2
    lps = np.array(image.TransformIndexToPhysicalPoint(index))
    np.testing.assert_allclose(lps * [-1, -1, 1], label.geometry.world(np.array([index]))[0], atol=1e-4)


def test_label_reads_back_exactly_and_small(tmp_path: Path) -> None:
    label = phantom_label()
    path = write_nifti(label, tmp_path / "a.nii.gz")
    again = read_label(path, EXCLUSIVE)
    np.testing.assert_array_equal(again.array, label.array)
    assert again.geometry.matches(label.geometry, 1e-4)
    stored = load(path)
    assert stored.get_data_dtype() == np.uint8
    assert stored.header["sform_code"] == stored.header["qform_code"] == 1
    assert stored.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(stored.get_sform(), stored.get_qform(), atol=1e-4)
    assert bytes(stored.header["descrip"]).rstrip(b"\0") == b"unet 3, digest 12ab; research use"


@pytest.mark.parametrize(("value", "dtype"), [(255, "uint8"), (256, "int16"), (40000, "int32")])
def test_type_is_the_smallest_that_holds_the_values(tmp_path: Path, value: int, dtype: str) -> None:
    labels = LabelSet(labels=(Label(name="a", value=value),))
    array = np.full((2, 3, 4), value)
    segmentation = Segmentation(array, Geometry.from_spacing(array.shape, (1, 1, 1)), labels)
    path = write_nifti(segmentation, tmp_path / "a.nii")
    assert load(path).get_data_dtype() == dtype
    np.testing.assert_array_equal(read_label(path, labels).array, array)


def test_ignore_value_below_zero_survives(tmp_path: Path) -> None:
    labels = LabelSet(labels=(Label(name="a", value=1),), ignore=-1)
    array = np.array([[[-1, 0, 1]]])
    segmentation = Segmentation(array, Geometry.from_spacing(array.shape, (1, 1, 1)), labels)
    np.testing.assert_array_equal(read_label(write_nifti(segmentation, tmp_path / "a.nii"), labels).array, array)


def test_overlapping_labels_are_a_fourth_axis(tmp_path: Path) -> None:
    array = np.random.default_rng(0).random((2, 7, 6, 5)) > 0.5
    segmentation = Segmentation(array, Geometry((7, 6, 5), OBLIQUE), OVERLAPPING)
    path = write_nifti(segmentation, tmp_path / "a.nii.gz")
    stored = load(path)
    assert (stored.shape, stored.get_data_dtype()) == ((7, 6, 5, 2), np.uint8)
    again = read_label(path, OVERLAPPING)
    assert again.array.dtype == np.bool_
    np.testing.assert_array_equal(again.array, array)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("channels", [1, 3])
def test_volume_reads_back_the_same(tmp_path: Path, dtype: str, channels: int) -> None:
    array = np.arange(channels * 210).reshape(channels, 7, 6, 5).astype(dtype)
    volume = Volume(array, Geometry((7, 6, 5), OBLIQUE))
    again = read_image(write_nifti(volume, tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(again.array, array)
    assert again.array.dtype == (np.float32 if dtype == "float64" else dtype)
    assert again.geometry.matches(volume.geometry, 1e-4)


def test_2d_volume_in_mm_reads_back_in_2d(tmp_path: Path) -> None:
    volume = Volume(np.arange(12.0, dtype=np.float32).reshape(1, 3, 4), Geometry.from_spacing((3, 4), (0.5, 2)))
    again = read_image(write_nifti(volume, tmp_path / "a.nii"))
    np.testing.assert_array_equal(again.array, volume.array)
    assert again.geometry.matches(volume.geometry)


def test_sheared_grid_keeps_its_sform_and_codes_no_qform(tmp_path: Path) -> None:
    sheared = OBLIQUE.copy()
    sheared[:3, 1] += sheared[:3, 0]
    label = phantom_label(sheared)
    path = write_nifti(label, tmp_path / "a.nii")
    assert load(path).header["qform_code"] == 0
    assert read_label(path, EXCLUSIVE).geometry.matches(label.geometry, 1e-4)


def test_long_maker_is_cut_but_research_use_stays(tmp_path: Path) -> None:
    label = phantom_label()
    long = Segmentation(label.array, label.geometry, EXCLUSIVE, Provenance(made_by="größe " * 40))
    descrip = bytes(load(write_nifti(long, tmp_path / "a.nii")).header["descrip"]).rstrip(b"\0")
    assert len(descrip) <= 79
    assert descrip.endswith(b"; research use")


def test_axis_too_long_for_nifti1_is_written_as_nifti2(tmp_path: Path) -> None:
    volume = Volume(np.zeros((1, 33000, 2, 1), np.uint8), Geometry.from_spacing((33000, 2, 1), (1, 1, 1)))
    path = write_nifti(volume, tmp_path / "a.nii.gz")
    assert gzip.decompress(path.read_bytes())[:4] == (540).to_bytes(4, "little")
    assert read_image(path).array.shape == (1, 33000, 2, 1)


def test_same_value_gives_the_same_bytes(tmp_path: Path) -> None:
    first = write_nifti(phantom_label(), tmp_path / "a.nii.gz").read_bytes()
    second = write_nifti(phantom_label(), tmp_path / "other name.nii.gz").read_bytes()
    assert first == second
    assert first[4:8] == b"\0\0\0\0"  # gzip's time of writing


@pytest.mark.parametrize("name", ["a.nrrd", "a", "a.gz", "a.nii.bz2"])
def test_other_extensions_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"\.nii"):
        write_nifti(phantom_label(), tmp_path / name)


def test_grid_in_pixels_is_refused(tmp_path: Path) -> None:
    volume = Volume(np.zeros((1, 3, 4), np.uint8), Geometry.from_spacing((3, 4), (1, 1), unit="px"))
    with pytest.raises(ConfigError, match="pixels"):
        write_nifti(volume, tmp_path / "a.nii")


def test_failure_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_nifti(phantom_label(), tmp_path / "a.nii.gz")
    before = path.read_bytes()
    write = gzip.GzipFile.write
    calls = iter(range(100))

    def full_disk(self: gzip.GzipFile, data: bytes) -> int:
        if next(calls) > 1:
            raise OSError(28, "No space left on device")
        return write(self, data)

    monkeypatch.setattr(gzip.GzipFile, "write", full_disk)
    with pytest.raises(WriteError, match=r"a\.nii\.gz.*No space left"):
        write_nifti(phantom_label(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
