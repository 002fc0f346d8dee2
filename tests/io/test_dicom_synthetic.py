"""What a generated series promises: values, repeatable identity, and no pretence of being a patient."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_allclose

from medseg.errors import DicomError
from medseg.geometry import Geometry
from medseg.io.dicom import SeriesDescription, read_dicom, write_series
from medseg.volume import Volume

GEOMETRY = Geometry((4, 5, 3), np.diag([1.0, 2.0, 3.0, 1.0]))


def test_real_numbers_are_kept_to_one_step_of_the_slope(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(0, 300, (1, 4, 5, 3)).astype(np.float32)
    write_series(Volume(values, GEOMETRY), tmp_path)
    step = (values.max() - values.min()) / 65535
    assert_allclose(read_dicom(tmp_path).array, values, atol=step)


def test_large_numbers_fit(tmp_path: Path) -> None:
    values = np.linspace(0, 1e6, 60, dtype=np.float32).reshape(1, 4, 5, 3)
    write_series(Volume(values, GEOMETRY), tmp_path)
    assert_allclose(read_dicom(tmp_path).array, values, atol=16)


def test_equal_descriptions_give_equal_objects(tmp_path: Path) -> None:
    volume = Volume(np.zeros((1, 4, 5, 3), dtype=np.float32), GEOMETRY)
    one = write_series(volume, tmp_path / "1", SeriesDescription(description="A"))
    two = write_series(volume, tmp_path / "2", SeriesDescription(description="A"))
    other = write_series(volume, tmp_path / "3", SeriesDescription(description="B"))
    assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]
    first, third = pydicom.dcmread(one[0]), pydicom.dcmread(other[0])
    assert first.StudyInstanceUID == third.StudyInstanceUID
    assert first.SeriesInstanceUID != third.SeriesInstanceUID
    assert str(first.PatientName) == "Phantom^Generated"


def test_volume_that_is_no_series_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DicomError, match="2 channels"):
        write_series(Volume(np.zeros((2, 4, 5, 3)), GEOMETRY), tmp_path)
    with pytest.raises(DicomError, match="not finite"):
        write_series(Volume(np.full((1, 4, 5, 3), np.nan), GEOMETRY), tmp_path)
    sheared = np.eye(4)
    sheared[0, 2] = 0.3
    with pytest.raises(DicomError, match="unsheared"):
        write_series(Volume(np.zeros((1, 4, 5, 3)), Geometry((4, 5, 3), sheared)), tmp_path)
