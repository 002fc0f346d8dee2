"""NIfTI phantoms with known answers, and agreement with nibabel."""

from __future__ import annotations

import gzip
import resource
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from medseg.errors import DataError, GeometryError, ReadError
from medseg.io import read_image

AFFINE = np.array([[-2.0, 0, 0, 10], [0, 3, 0, -20], [0, 0, 4, 30], [0, 0, 0, 1]])
REAL_DTYPES = ["u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8"]


def load(path: Path) -> Any:
    return nibabel.load(path)


def numbers(shape: tuple[int, ...], dtype: Any = np.int16) -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def save(path: Path, array: np.ndarray, affine: np.ndarray | None = AFFINE, kind: Any = nibabel.Nifti1Image) -> Path:
    nibabel.save(kind(array, affine, dtype=array.dtype), path)
    return path


def patch(path: Path, offset: int, value: bytes) -> Path:
    """The file with some bytes of its header replaced."""
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(value)] = value
    path.write_bytes(bytes(raw))
    return path


def refusal_of(path: Path) -> str | None:
    """The message that refuses a file, or None where it is read to finite values."""
    try:
        array = read_image(path).array
    except DataError as error:
        return str(error)
    assert np.isfinite(array).all()
    return None


def little(value: Any, dtype: str) -> bytes:
    return np.array(value, dtype=dtype).tobytes()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", REAL_DTYPES)
@pytest.mark.parametrize("version", [1, 2])
def test_every_real_type_and_byte_order(tmp_path: Path, dtype: str, order: Any, version: int) -> None:
    stored = numbers((3, 4, 5), np.dtype(dtype).newbyteorder(order))
    image = {1: nibabel.Nifti1Image, 2: nibabel.Nifti2Image}[version](stored, AFFINE, dtype=stored.dtype)
    image.header.set_data_dtype(dtype)
    swapped = type(image)(stored, AFFINE, image.header.as_byteswapped(order))
    swapped.header.set_slope_inter(1, 0)
    nibabel.save(swapped, tmp_path / "a.nii")
    volume = read_image(tmp_path / "a.nii")
    assert volume.array.dtype == (np.float32 if dtype == "f8" else np.dtype(dtype))
    assert volume.array.dtype.isnative
    np.testing.assert_array_equal(volume.array[0], stored)
    np.testing.assert_allclose(volume.geometry.affine, AFFINE)
    assert volume.provenance.format == "nifti"
    assert volume.provenance.files == (tmp_path / "a.nii",)
    assert volume.provenance.notes == ()


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.NII.GZ", "a"])
def test_gzip_is_known_by_its_bytes_whatever_the_name(tmp_path: Path, name: str) -> None:
    plain = save(tmp_path / "plain.nii", numbers((3, 4, 5)))
    (tmp_path / name).write_bytes(gzip.compress(plain.read_bytes()))
    np.testing.assert_array_equal(read_image(tmp_path / name).array[0], numbers((3, 4, 5)))
    (tmp_path / name).write_bytes(plain.read_bytes())
    np.testing.assert_array_equal(read_image(tmp_path / name).array[0], numbers((3, 4, 5)))


@pytest.mark.parametrize("pack", [(False, False), (True, True), (False, True), (True, False)])
def test_pair_is_read_from_either_half(tmp_path: Path, pack: tuple[bool, bool]) -> None:
    save(tmp_path / "a.img", numbers((3, 4, 5)), kind=nibabel.Nifti1Pair)
    for name, packed in zip(("a.hdr", "a.img"), pack, strict=True):
        if packed:
            raw = (tmp_path / name).read_bytes()
            (tmp_path / name).unlink()
            (tmp_path / f"{name}.gz").write_bytes(gzip.compress(raw))
    for path in sorted(tmp_path.iterdir()):
        volume = read_image(path)
        np.testing.assert_array_equal(volume.array[0], numbers((3, 4, 5)))
        assert [file.name[:5] for file in volume.provenance.files] == ["a.hdr", "a.img"]


@pytest.mark.parametrize(("slope", "inter"), [(0.37, 0.0), (2.0, -1024.0), (1.0, 5.0), (-1.0, 0.0)])
def test_scaling_agrees_with_nibabel(tmp_path: Path, slope: float, inter: float) -> None:
    path = save(tmp_path / "a.nii", numbers((3, 4, 5)))
    patch(path, 112, little([slope, inter], "<f4"))
    volume = read_image(path)
    assert volume.array.dtype == np.float32
    np.testing.assert_allclose(volume.array[0], load(path).get_fdata(), rtol=1e-6)


def test_slope_of_zero_means_not_scaled(tmp_path: Path) -> None:
    path = patch(save(tmp_path / "a.nii", numbers((3, 4, 5))), 112, little([0, 7], "<f4"))
    assert read_image(path).array.dtype == np.int16
    np.testing.assert_array_equal(read_image(path).array[0], numbers((3, 4, 5)))


@pytest.mark.parametrize(("slope", "inter"), [(np.nan, 0.0), (np.inf, 0.0), (2.0, np.nan)])
def test_scaling_that_is_no_number_is_refused(tmp_path: Path, slope: float, inter: float) -> None:
    path = patch(save(tmp_path / "a.nii", numbers((3, 4, 5))), 112, little([slope, inter], "<f4"))
    with pytest.raises(ReadError, match="scl_slope"):
        read_image(path)


@pytest.mark.parametrize("shape", [(3, 4, 5), (3, 4, 5, 1), (3, 4, 5, 1, 1), (3, 4, 1)])
def test_trailing_singletons_fall_away(tmp_path: Path, shape: tuple[int, ...]) -> None:
    volume = read_image(save(tmp_path / "a.nii", numbers(shape)))
    assert volume.array.shape == (1, *shape[:3])
    np.testing.assert_array_equal(volume.array[0], numbers(shape).reshape(shape[:3]))


@pytest.mark.parametrize("shape", [(3, 4, 5, 2), (3, 4, 5, 1, 2), (3, 4, 5, 2, 1), (3, 4, 1, 1, 2)])
def test_fourth_or_fifth_axis_becomes_channels(tmp_path: Path, shape: tuple[int, ...]) -> None:
    volume = read_image(save(tmp_path / "a.nii", numbers(shape)))
    assert volume.array.shape == (2, *shape[:3])
    for channel in range(2):
        np.testing.assert_array_equal(volume.array[channel], numbers(shape).reshape(*shape[:3], 2)[..., channel])


@pytest.mark.parametrize("shape", [(3, 4, 5, 2, 2), (3, 4, 2, 1, 1, 2), (7,)])
def test_shapes_without_a_stated_meaning_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ReadError, match=r"a\.nii"):
        read_image(save(tmp_path / "a.nii", numbers(shape)))


def test_rgb_becomes_three_channels(tmp_path: Path) -> None:
    colours = np.zeros((3, 4, 5), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    colours["R"], colours["G"], colours["B"] = numbers((3, 4, 5)), numbers((3, 4, 5)) + 60, numbers((3, 4, 5)) + 120
    volume = read_image(save(tmp_path / "a.nii.gz", colours))
    for channel, name in enumerate("RGB"):
        np.testing.assert_array_equal(volume.array[channel], colours[name])
    assert volume.array.dtype == np.uint8


@pytest.mark.parametrize(("alpha", "is_read"), [(255, True), (254, False)])
def test_alpha_is_dropped_only_where_it_is_opaque(tmp_path: Path, alpha: int, is_read: bool) -> None:
    colours = np.zeros((3, 4, 5), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1"), ("A", "u1")])
    colours["A"] = 255
    colours["A"][0, 0, 0] = alpha
    path = save(tmp_path / "a.nii", colours)
    if is_read:
        assert read_image(path).array.shape == (3, 3, 4, 5)
    else:
        with pytest.raises(ReadError, match="alpha"):
            read_image(path)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
def test_complex_numbers_are_refused(tmp_path: Path, dtype: Any) -> None:
    with pytest.raises(ReadError, match="complex"):
        read_image(save(tmp_path / "a.nii", numbers((3, 4, 5), dtype)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_no_32_bit_number_are_refused_with_their_count(tmp_path: Path, value: float) -> None:
    array = numbers((3, 4, 5), np.float64)
    array[0, :2, 0] = value
    with pytest.raises(ReadError, match=r"a\.nii: 2 of 60 voxels"):
        read_image(save(tmp_path / "a.nii", array))


def with_forms(path: Path, sform: np.ndarray | None, qform: np.ndarray | None) -> Path:
    image = nibabel.Nifti1Image(numbers((3, 4, 5)), None)
    image.header.set_zooms((2, 3, 4))
    image.set_sform(sform, 0 if sform is None else 2)
    if qform is not None:
        image.set_qform(qform, 1)
    nibabel.save(image, path)
    return path


def test_sform_counts_before_qform(tmp_path: Path) -> None:
    moved = AFFINE + np.array([[0, 0, 0, 5], [0] * 4, [0] * 4, [0] * 4])
    volume = read_image(with_forms(tmp_path / "a.nii", moved, AFFINE))
    np.testing.assert_allclose(volume.geometry.affine, moved)
    assert volume.provenance.notes == ("sform and qform disagree; the sform was taken",)


def test_agreeing_forms_need_no_note(tmp_path: Path) -> None:
    volume = read_image(with_forms(tmp_path / "a.nii", AFFINE, AFFINE))
    assert volume.provenance.notes == ()


def test_qform_counts_where_no_sform_is_coded(tmp_path: Path) -> None:
    volume = read_image(with_forms(tmp_path / "a.nii", None, AFFINE))
    np.testing.assert_allclose(volume.geometry.affine, AFFINE, atol=1e-5)


def test_spacing_alone_is_noted(tmp_path: Path) -> None:
    path = with_forms(tmp_path / "a.nii", None, None)
    volume = read_image(path)
    np.testing.assert_allclose(volume.geometry.spacing, [2, 3, 4])
    np.testing.assert_allclose(volume.geometry.affine, load(path).affine)
    assert "left and right are not" in volume.provenance.notes[0]


def test_no_affine_and_no_spacing_is_refused(tmp_path: Path) -> None:
    path = patch(with_forms(tmp_path / "a.nii", None, None), 80, little([0, 3, 4], "<f4"))
    with pytest.raises(ReadError, match="voxel size"):
        read_image(path)


def test_sform_that_cannot_be_inverted_is_refused_by_name(tmp_path: Path) -> None:
    path = patch(save(tmp_path / "a.nii", numbers((3, 4, 5))), 280, bytes(16))
    with pytest.raises(GeometryError, match=r"a\.nii.*inverted"):
        read_image(path)


def test_sheared_affine_is_noted(tmp_path: Path) -> None:
    sheared = AFFINE.copy()
    sheared[0, 1] = 1.5
    volume = read_image(save(tmp_path / "a.nii", numbers((3, 4, 5)), sheared))
    np.testing.assert_allclose(volume.geometry.affine, sheared)
    assert any("sheared" in note for note in volume.provenance.notes)


@pytest.mark.parametrize(("unit", "factor"), [("mm", 1), ("meter", 1000), ("micron", 0.001), ("unknown", 1)])
def test_coordinates_are_in_mm(tmp_path: Path, unit: str, factor: float) -> None:
    image = nibabel.Nifti1Image(numbers((3, 4, 5)), AFFINE)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    volume = read_image(tmp_path / "a.nii")
    np.testing.assert_allclose(volume.geometry.affine[:3], AFFINE[:3] * factor)


def test_one_flat_slice_is_a_2d_volume_in_mm(tmp_path: Path) -> None:
    volume = read_image(save(tmp_path / "a.nii", numbers((3, 4))))
    assert (volume.array.shape, volume.geometry.unit) == ((1, 3, 4), "mm")
    np.testing.assert_allclose(volume.geometry.affine, [[-2, 0, 10], [0, 3, -20], [0, 0, 1]])


def test_one_tilted_slice_is_refused(tmp_path: Path) -> None:
    tilted = AFFINE[[0, 2, 1, 3]]
    with pytest.raises(GeometryError, match=r"\(X, Y, 1\)"):
        read_image(save(tmp_path / "a.nii", numbers((3, 4)), tilted))


def test_truncation_anywhere_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 2**15, (9, 8, 7)).astype(np.int16)
    for name in ("a.nii", "a.nii.gz"):
        whole = save(tmp_path / name, noise).read_bytes()
        for length in (0, 1, 2, 3, 10, 100, 347, 348, 352, len(whole) // 2, len(whole) - 1):
            (tmp_path / name).write_bytes(whole[:length])
            with pytest.raises(ReadError, match=name) as caught:
                read_image(tmp_path / name)
            assert str(caught.value).count("\n") == 0


def test_flipped_bit_in_gzip_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 2**15, (9, 8, 7)).astype(np.int16)
    path = save(tmp_path / "a.nii.gz", noise)
    size = path.stat().st_size
    raw = path.read_bytes()
    for position in range(400, size, size // 7):
        path.write_bytes(raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :])
        with pytest.raises(ReadError, match=r"a\.nii\.gz"):
            read_image(path)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_boastful_header_takes_no_memory(tmp_path: Path, name: str) -> None:
    plain = save(tmp_path / "plain.nii", numbers((3, 4, 5)))
    raw = patch(plain, 40, little([3, 32767, 32767, 32767], "<i2")).read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(raw) if name.endswith("gz") else raw)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ReadError, match="claims"):
        read_image(tmp_path / name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (0, b"\0\0\0\0"),  # sizeof_hdr
        (40, little(9, "<i2")),  # dim[0]
        (42, little(0, "<i2")),  # dim[1]
        (42, little(-5, "<i2")),
        (70, little(12345, "<i2")),  # datatype
        (70, little(1536, "<i2")),  # float128
        (108, little(np.nan, "<f4")),  # vox_offset
        (108, little(-1000, "<f4")),
        (108, little(1e30, "<f4")),
        (344, b"abcd"),  # magic
        (344, b"\0\0\0\0"),
        (344, b"ni1\0"),
    ],
)
def test_damaged_header_is_refused_in_one_line(tmp_path: Path, offset: int, value: bytes) -> None:
    path = patch(save(tmp_path / "a.nii", numbers((3, 4, 5))), offset, value)
    with pytest.raises(ReadError, match=r"a\.nii: ") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_random_damage_never_escapes_as_another_error(tmp_path: Path) -> None:
    whole = save(tmp_path / "a.nii", numbers((3, 4, 5), np.float32)).read_bytes()
    random = np.random.default_rng(1)
    for _ in range(400):
        raw = bytearray(whole)
        for position in random.integers(0, 348, size=4):
            raw[position] = random.integers(0, 256)
        (tmp_path / "a.nii").write_bytes(bytes(raw))
        refusal = refusal_of(tmp_path / "a.nii")
        assert refusal is None or ("a.nii" in refusal and "\n" not in refusal)


@pytest.mark.parametrize("name", ["absent.nii", "absent.hdr", "absent", "absent.img.gz", "absent.mha", "absent.nrrd"])
def test_absent_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ReadError, match="no such file"):
        read_image(tmp_path / name)


def test_half_a_pair_names_the_missing_half(tmp_path: Path) -> None:
    save(tmp_path / "a.img", numbers((3, 4, 5)), kind=nibabel.Nifti1Pair)
    (tmp_path / "a.img").unlink()
    with pytest.raises(ReadError, match=r"a\.img is missing"):
        read_image(tmp_path / "a.hdr")


def test_unknown_format_lists_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ReadError, match="NRRD"):
        read_image(tmp_path / "notes.txt")
