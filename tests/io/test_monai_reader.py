"""MONAI's LoadImaged reads through medseg: the same arrays and affines as its own readers, and medseg's refusals."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
from monai.data import NibabelReader
from monai.transforms import Compose, EnsureChannelFirstd, LoadImage, LoadImaged
from PIL import Image

from medseg.errors import DicomError, GeometryError, ReadError
from medseg.geometry import Geometry
from medseg.io import read_image
from medseg.io.dicom import SeriesDescription, SeriesRule, write_series
from medseg.io.monai_reader import VolumeReader
from medseg.volume import Volume

AFFINE = np.array([[0.0, -2, 0, 10], [1.5, 0, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]])


def save(path: Path, shape: tuple[int, ...] = (3, 4, 5), affine: np.ndarray = AFFINE) -> Path:
    nibabel.save(nibabel.Nifti1Image(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), affine), path)
    return path


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 2)])
def test_nifti_equals_monais_own_reader(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = save(tmp_path / "a.nii.gz", shape)
    images = []
    for reader in (VolumeReader(), NibabelReader()):
        steps = Compose([LoadImaged("image", reader=reader), EnsureChannelFirstd("image")])  # type: ignore[arg-type]
        images.append(steps({"image": str(path)})["image"])
    ours, theirs = images
    np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    np.testing.assert_allclose(ours.affine.numpy(), theirs.affine.numpy())
    assert ours.shape == (shape[3] if len(shape) > 3 else 1, 3, 4, 5)
    np.testing.assert_allclose(ours.pixdim.numpy(), theirs.pixdim.numpy())
    assert list(ours.meta["spatial_shape"]) == [3, 4, 5]


def test_picture_has_columns_before_rows(tmp_path: Path) -> None:
    pixels = np.arange(15, dtype=np.uint8).reshape(3, 5)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = LoadImage(reader=VolumeReader())(tmp_path / "a.png")
    theirs = LoadImage(reader="PILReader")(tmp_path / "a.png")
    np.testing.assert_array_equal(image.numpy(), pixels.T[np.newaxis])
    np.testing.assert_array_equal(image[0].numpy(), theirs.numpy())


def test_rule_picks_the_series_of_a_dicom_folder(tmp_path: Path) -> None:
    grid = Geometry.from_spacing((4, 5, 3), (1, 2, 3))
    for number, name in enumerate(("wanted", "other"), start=1):
        volume = Volume(np.full((1, 4, 5, 3), number, np.int16), grid)
        write_series(volume, tmp_path / name, SeriesDescription(description=name, number=number))
    rule = SeriesRule(description="WANT*")
    image = LoadImage(reader=VolumeReader(rule))(tmp_path)
    np.testing.assert_array_equal(image.numpy(), np.ones((1, 4, 5, 3)))
    np.testing.assert_allclose(image.affine.numpy(), read_image(tmp_path, rule).geometry.affine)
    with pytest.raises(DicomError, match="other"):
        LoadImage(reader=VolumeReader())(tmp_path)


def test_refusal_is_not_answered_by_another_reader(tmp_path: Path) -> None:
    array = np.zeros((3, 4, 5), np.float32)
    array[0, 0, 0] = np.nan
    nibabel.save(nibabel.Nifti1Image(array, AFFINE), tmp_path / "a.nii")
    with pytest.raises(ReadError, match="1 of 60 voxels"):
        LoadImage(reader=VolumeReader())(tmp_path / "a.nii")


def test_several_files_become_channels_of_one_grid(tmp_path: Path) -> None:
    paths = [save(tmp_path / "a.nii"), save(tmp_path / "b.nii")]
    assert LoadImage(reader=VolumeReader())(paths).shape == (2, 3, 4, 5)
    moved = save(tmp_path / "moved.nii", affine=np.diag([1.0, 1, 1, 1]))
    with pytest.raises(GeometryError, match=r"moved\.nii"):
        LoadImage(reader=VolumeReader())([*paths, moved])


def test_known_extensions_and_folders_are_accepted(tmp_path: Path) -> None:
    reader = VolumeReader()
    assert reader.verify_suffix([tmp_path, "a.nii.gz", "b.MHA", "c.nrrd", "d.tif"])
    assert not reader.verify_suffix("a.npy")


def test_importing_the_package_imports_no_reader_library() -> None:
    code = (
        "import sys, medseg.io; "
        "print(sorted({'torch', 'monai', 'SimpleITK', 'nibabel', 'PIL', 'pydicom'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
