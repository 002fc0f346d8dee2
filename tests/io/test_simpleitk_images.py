"""NRRD and MetaImage agree with SimpleITK and lie at the same place; hostile headers are refused unopened."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from medseg.errors import DataError, ReadError
from medseg.io import read_image

EXTENSIONS = ["mha", "mhd", "nrrd", "nhdr"]
DTYPES = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "float32", "float64"]


def phantom(dtype: str = "int16", components: int = 1, dims: int = 3) -> SimpleITK.Image:
    shape = (5, 6, 7)[3 - dims :] + ((components,) if components > 1 else ())
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    image = SimpleITK.GetImageFromArray(array, isVector=components > 1)
    image.SetSpacing([2.0, 3.0, 4.0][:dims])
    image.SetOrigin([11.0, -12.0, 13.0][:dims])
    image.SetDirection([0, -1, 0, 1, 0, 0, 0, 0, 1] if dims == 3 else [0, -1, 1, 0])
    return image


def save(image: SimpleITK.Image, path: Path, compress: bool = False) -> Path:
    SimpleITK.WriteImage(image, str(path), useCompression=compress)
    return path


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_type_reads_as_it_is_stored(tmp_path: Path, extension: str, dtype: str, compress: bool) -> None:
    image = phantom(dtype)
    volume = read_image(save(image, tmp_path / f"a.{extension}", compress))
    np.testing.assert_array_equal(volume.array[0], SimpleITK.GetArrayFromImage(image).T)
    assert volume.array.dtype == ("float32" if dtype == "float64" else dtype)
    assert volume.provenance.format == ("metaimage" if extension.startswith("m") else "nrrd")
    assert len(volume.provenance.files) == (2 if extension in ("mhd", "nhdr") else 1)


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("dims", [2, 3])
def test_voxels_lie_where_simpleitk_puts_them(tmp_path: Path, extension: str, dims: int) -> None:
    image = phantom(dims=dims)
    volume = read_image(save(image, tmp_path / f"a.{extension}"))
    assert (volume.geometry.dims, volume.geometry.unit) == (dims, "mm")
    index = [4, 2, 3][:dims]
    lps = np.array(image.TransformIndexToPhysicalPoint(index))
    ras = volume.geometry.world(np.array([index]))[0]
    np.testing.assert_allclose(ras, lps * [-1, -1, 1][:dims])
    assert volume.array[0][tuple(index)] == image.GetPixel(*index)


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize("dims", [2, 3])
def test_components_become_channels(tmp_path: Path, extension: str, dims: int) -> None:
    image = phantom("uint8", components=3, dims=dims)
    volume = read_image(save(image, tmp_path / f"a.{extension}"))
    array = SimpleITK.GetArrayFromImage(image)
    for channel in range(3):
        np.testing.assert_array_equal(volume.array[channel], array[..., channel].T)


@pytest.mark.parametrize("extension", ["mha", "nrrd"])
def test_fourth_axis_becomes_channels(tmp_path: Path, extension: str) -> None:
    array = np.arange(2 * 5 * 6 * 7, dtype=np.int16).reshape(2, 5, 6, 7)
    image = SimpleITK.GetImageFromArray(array, isVector=False)
    image.SetSpacing([2, 3, 4, 1])
    volume = read_image(save(image, tmp_path / f"a.{extension}"))
    for channel in range(2):
        np.testing.assert_array_equal(volume.array[channel], array[channel].T)
    np.testing.assert_allclose(volume.geometry.affine, np.diag([-2.0, -3.0, 4.0, 1.0]))


@pytest.mark.parametrize("extension", EXTENSIONS)
@pytest.mark.parametrize(
    "named",
    ["/etc/passwd", "../a.raw", "sub/../../a.raw", "LIST", "list 2", "a%02d.raw 0 9 1", "C:\\a.raw", "..\\a.raw"],
)
def test_data_outside_the_folder_or_in_several_files_is_refused(tmp_path: Path, extension: str, named: str) -> None:
    path = save(phantom(), tmp_path / f"a.{extension}")
    (tmp_path / "a.raw").write_bytes(bytes(1000))
    raw = path.read_bytes()
    if extension.startswith("m"):
        start = raw.index(b"ElementDataFile")
        path.write_bytes(raw[:start] + f"ElementDataFile = {named}\n".encode())
    else:
        header = raw[: raw.index(b"\n\n") + 1] if extension == "nrrd" else raw[: raw.index(b"data file")]
        path.write_bytes(header + f"data file: {named}\n\n".encode())
    with pytest.raises(ReadError, match=r"outside its own folder|several files"):
        read_image(path)


@pytest.mark.parametrize("extension", ["mhd", "nhdr"])
def test_missing_data_file_is_named(tmp_path: Path, extension: str) -> None:
    path = save(phantom(), tmp_path / f"a.{extension}")
    (tmp_path / "a.raw").unlink()
    with pytest.raises(ReadError, match=r"a\.raw"):
        read_image(path)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("extension", ["mha", "nrrd"])
def test_truncation_anywhere_is_refused(tmp_path: Path, extension: str, compress: bool) -> None:
    noise = np.random.default_rng(0).integers(0, 2**15, (9, 8, 7)).astype(np.int16)
    path = save(SimpleITK.GetImageFromArray(noise), tmp_path / f"a.{extension}", compress)
    whole = path.read_bytes()
    for length in (0, 1, 5, 50, 200, len(whole) // 2, len(whole) - 12):
        path.write_bytes(whole[:length])
        with pytest.raises(ReadError, match=path.name) as caught:
            read_image(path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("extension", ["mha", "nrrd"])
def test_flipped_bit_in_compressed_data_is_refused(tmp_path: Path, extension: str) -> None:
    noise = np.random.default_rng(0).integers(0, 2**15, (9, 8, 7)).astype(np.int16)
    path = save(SimpleITK.GetImageFromArray(noise), tmp_path / f"a.{extension}", compress=True)
    raw = bytearray(path.read_bytes())
    raw[-400] ^= 1
    path.write_bytes(bytes(raw))
    with pytest.raises(ReadError, match=path.name):
        read_image(path)


@pytest.mark.parametrize(
    ("extension", "old", "new"),
    [
        ("mha", b"DimSize = 7 6 5", b"DimSize = 70000 60000 50000"),
        ("mha", b"DimSize = 7 6 5", b"DimSize = 7 -6 5"),
        ("mha", b"DimSize = 7 6 5", b"DimSize = 7 6"),
        ("mha", b"NDims = 3", b"NDims = 300"),
        ("mha", b"MET_SHORT", b"MET_OTHER"),
        ("mha", b"BinaryData = True", b"BinaryData = False"),
        ("mha", b"ElementDataFile", b"ElementDataFire"),
        ("nrrd", b"sizes: 7 6 5", b"sizes: 70000 60000 50000"),
        ("nrrd", b"sizes: 7 6 5", b"sizes: 7 0 5"),
        ("nrrd", b"dimension: 3", b"dimension: 16"),
        ("nrrd", b"type: short", b"type: block"),
        ("nrrd", b"encoding: raw", b"encoding: hex"),
        ("nrrd", b"encoding: raw", b"encoding: odd"),
        ("nrrd", b"NRRD0004", b"NRRD1004"),
    ],
)
def test_damaged_header_is_refused_in_one_line(tmp_path: Path, extension: str, old: bytes, new: bytes) -> None:
    path = save(phantom(), tmp_path / f"a.{extension}")
    raw = path.read_bytes()
    assert old in raw
    path.write_bytes(raw.replace(old, new, 1))
    with pytest.raises(DataError, match=path.name) as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_values_that_are_no_number_are_refused_with_their_count(tmp_path: Path) -> None:
    array = np.zeros((5, 6, 7), np.float32)
    array[0, 0, :3] = np.nan
    with pytest.raises(ReadError, match="3 of 210 voxels"):
        read_image(save(SimpleITK.GetImageFromArray(array), tmp_path / "a.nrrd"))


def test_complex_numbers_are_refused(tmp_path: Path) -> None:
    image = SimpleITK.RealAndImaginaryToComplex(*[SimpleITK.GetImageFromArray(np.ones((5, 6, 7), np.float32))] * 2)
    with pytest.raises(ReadError, match="complex"):
        read_image(save(image, tmp_path / "a.nrrd"))


def test_nrrd_without_a_space_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "a.nrrd"
    path.write_bytes(b"NRRD0001\ntype: uint8\ndimension: 3\nsizes: 2 2 2\nspacings: 1 2 3\nencoding: raw\n\n12345678")
    volume = read_image(path)
    np.testing.assert_allclose(volume.geometry.spacing, [1, 2, 3])
    assert "no space" in volume.provenance.notes[0]


@pytest.mark.real
def test_real_nrrd_agrees_with_simpleitk(real_data: Path) -> None:
    paths = sorted((real_data / "nrrd_pyradiomics").rglob("*.nrrd"))
    assert paths
    for path in paths:
        image = SimpleITK.ReadImage(str(path))
        volume = read_image(path)
        np.testing.assert_array_equal(volume.array[0], SimpleITK.GetArrayFromImage(image).T)
        corner = [size - 1 for size in image.GetSize()]
        lps = np.array(image.TransformIndexToPhysicalPoint(corner))
        np.testing.assert_allclose(volume.geometry.world(np.array([corner]))[0], lps * [-1, -1, 1], atol=1e-4)
