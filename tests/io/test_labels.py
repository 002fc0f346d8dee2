"""Labels are exact or refused, with the fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from medseg.errors import LabelError
from medseg.io import read_label
from medseg.labels import Label, LabelSet

EXCLUSIVE = LabelSet(labels=(Label(name="a", value=1), Label(name="b", value=2)))
OVERLAPPING = LabelSet(kind="overlapping", labels=EXCLUSIVE.labels)
VALUES = np.arange(60).reshape(3, 4, 5) % 3


def load(path: Path) -> Any:
    return nibabel.load(path)


def save(path: Path, array: np.ndarray) -> Path:
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4), dtype=array.dtype), path)
    return path


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_type_gives_the_same_small_integers(tmp_path: Path, dtype: str) -> None:
    label = read_label(save(tmp_path / "a.nii.gz", VALUES.astype(dtype)), EXCLUSIVE)
    assert label.array.dtype == np.uint8
    np.testing.assert_array_equal(label.array, VALUES)
    assert label.labels == EXCLUSIVE


@pytest.mark.parametrize("noise", [-9e-4, 1e-7, 9e-4])
def test_float_noise_counts_as_an_integer(tmp_path: Path, noise: float) -> None:
    label = read_label(save(tmp_path / "a.nii", (VALUES + noise).astype("f4")), EXCLUSIVE)
    np.testing.assert_array_equal(label.array, VALUES)


@pytest.mark.parametrize("noise", [0.5, 0.01, 2e-3])
def test_interpolated_values_are_refused(tmp_path: Path, noise: float) -> None:
    array = VALUES.astype("f4")
    array[0, 0, :2] += noise
    with pytest.raises(LabelError, match=r"a\.nii: 2 label voxels.*nearest neighbour"):
        read_label(save(tmp_path / "a.nii", array), EXCLUSIVE)


@pytest.mark.parametrize("stranger", [3, -1, 255, 2**40, 1e20])
def test_value_out_of_the_set_is_refused(tmp_path: Path, stranger: Any) -> None:
    array = VALUES.astype("f8" if isinstance(stranger, float) else "i8")
    array[0, 0, 0] = stranger
    with pytest.raises(LabelError, match=r"a\.nii"):
        read_label(save(tmp_path / "a.nii", array), EXCLUSIVE)


def test_one_hot_file_becomes_overlapping_labels(tmp_path: Path) -> None:
    one_hot = np.stack([VALUES == 1, VALUES > 0], axis=-1)
    for array in (one_hot, one_hot[:, :, :, np.newaxis]):
        label = read_label(save(tmp_path / "a.nii", array.astype("u1")), OVERLAPPING)
        assert (label.array.shape, label.array.dtype) == ((2, 3, 4, 5), np.bool_)
        np.testing.assert_array_equal(label.mask("b"), VALUES > 0)


def test_one_hot_file_of_an_exclusive_set_is_refused_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"2 channels.*kind: overlapping"):
        read_label(save(tmp_path / "a.nii", np.stack([VALUES, VALUES], axis=-1).astype("u1")), EXCLUSIVE)


def test_integers_of_an_overlapping_set_are_refused_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"1 channels for 2 overlapping.*kind: exclusive"):
        read_label(save(tmp_path / "a.nii", VALUES.astype("u1")), OVERLAPPING)


def test_overlapping_values_beyond_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="2"):
        read_label(save(tmp_path / "a.nii", np.stack([VALUES, VALUES], axis=-1).astype("u1")), OVERLAPPING)


def test_folder_is_no_label(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="DICOM"):
        read_label(tmp_path, EXCLUSIVE)


@pytest.mark.real
def test_real_float_labels_equal_nibabel(real_data: Path) -> None:
    paths = sorted((real_data / "hippocampus" / "labels").glob("*.nii.gz"))[:10]
    paths += sorted((real_data / "hippocampus_quirks" / "labels").glob("hippocampus_003*"))
    assert len(paths) > 5
    for path in paths:
        np.testing.assert_array_equal(read_label(path, EXCLUSIVE).array, load(path).get_fdata())
