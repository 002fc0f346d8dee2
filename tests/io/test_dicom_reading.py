"""What the DICOM reader promises of one series: order, place, values, and refusals that say why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK
from numpy.testing import assert_allclose, assert_array_equal

from medseg.errors import DicomError
from medseg.geometry import Geometry
from medseg.io.dicom import SeriesDescription, SeriesRule, read_dicom, read_series, scan_series, write_series
from medseg.volume import Volume

SHAPE = (7, 5, 6)  # columns, rows, slices


def oblique(
    spacing: tuple[float, float, float] = (0.7, 1.3, 2.5), flips: tuple[int, int, int] = (1, 1, 1)
) -> np.ndarray:
    """An affine turned by 30 and 20 degrees about two axes."""
    a, b = np.radians(30), np.radians(20)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag(np.multiply(spacing, flips))
    affine[:3, 3] = -31.5, 12.25, 100.0
    return affine


def phantom(affine: np.ndarray | None = None) -> Volume:
    """Every voxel has a value of its own."""
    values = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(1, *SHAPE)
    return Volume(values, Geometry(SHAPE, oblique() if affine is None else affine))


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    return write_series(phantom(), tmp_path / "series")


def edit(path: Path, **values: Any) -> None:
    """Sets attributes of a file; None removes one."""
    dataset = pydicom.dcmread(path)
    for keyword, value in values.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)


def move(path: Path, offset: np.ndarray) -> None:
    edit(
        path,
        ImagePositionPatient=[f"{v:.10g}" for v in pydicom.dcmread(path).ImagePositionPatient + np.asarray(offset)],
    )


def normal_of(path: Path) -> np.ndarray:
    orientation = [float(value) for value in pydicom.dcmread(path).ImageOrientationPatient]
    return np.cross(orientation[:3], orientation[3:])


@pytest.mark.parametrize("modality", ["MR", "CT"])
def test_series_comes_back_voxel_for_voxel(tmp_path: Path, modality: Any) -> None:
    write_series(phantom(), tmp_path, SeriesDescription(modality=modality))
    volume = read_dicom(tmp_path)
    assert volume.array.dtype == np.float32
    assert_array_equal(volume.array, phantom().array)
    assert_allclose(volume.geometry.affine, oblique(), atol=1e-6)
    assert volume.provenance.modality == modality
    assert len(volume.provenance.files) == SHAPE[2]


@pytest.mark.parametrize("flips", [(-1, -1, 1), (1, -1, -1), (-1, 1, -1)])
def test_flipped_axes_of_a_right_handed_grid_come_back(tmp_path: Path, flips: tuple[int, int, int]) -> None:
    write_series(phantom(oblique(flips=flips)), tmp_path)
    volume = read_dicom(tmp_path)
    assert_array_equal(volume.array, phantom().array)
    assert_allclose(volume.geometry.affine, oblique(flips=flips), atol=1e-6)


@pytest.mark.parametrize("flips", [(1, 1, -1), (-1, 1, 1), (1, -1, 1), (-1, -1, -1)])
def test_left_handed_grid_comes_back_with_its_last_axis_reversed(tmp_path: Path, flips: tuple[int, int, int]) -> None:
    made = phantom(oblique(flips=flips))
    write_series(made, tmp_path)
    volume = read_dicom(tmp_path)
    assert_array_equal(volume.array, made.array[..., ::-1])
    corners = np.array([[0, 0, 0], [6, 4, 5], [6, 0, 2]], dtype=float)
    assert_allclose(volume.geometry.world(corners), made.geometry.world(corners * [1, 1, -1] + [0, 0, 5]), atol=1e-6)


def test_place_and_value_of_each_voxel_agree_with_simpleitk(series: list[Path]) -> None:
    volume = read_dicom(series[0].parent)
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(series[0].parent)))
    image = reader.Execute()
    for index in [(0, 0, 0), (6, 4, 5), (3, 1, 2), (6, 0, 0), (0, 4, 0)]:
        lps = np.array(image.TransformIndexToPhysicalPoint(index))
        at = np.rint(volume.geometry.index((lps * [-1, -1, 1])[None])[0]).astype(int)
        assert_allclose(volume.geometry.world(at[None].astype(float))[0], lps * [-1, -1, 1], atol=1e-4)
        assert volume.array[(0, *at)] == image.GetPixel(index)


def test_pixel_spacing_is_between_rows_first(tmp_path: Path) -> None:
    paths = write_series(phantom(), tmp_path)
    assert_allclose(pydicom.dcmread(paths[0]).PixelSpacing, [1.3, 0.7])  # rows lie 1.3 mm apart: array axis 1
    assert_allclose(read_dicom(tmp_path).geometry.spacing, [0.7, 1.3, 2.5], atol=1e-6)


def test_order_follows_position_not_number_or_name(tmp_path: Path) -> None:
    paths = write_series(phantom(), tmp_path / "ordered")
    numbers = [4, 1, 6, 2, 5, 3]
    (tmp_path / "shuffled").mkdir()
    for path, number in zip(paths, numbers, strict=True):
        edit(path, InstanceNumber=number)
        path.rename(tmp_path / "shuffled" / f"IM{number}")
    assert_array_equal(read_dicom(tmp_path / "shuffled").array, phantom().array)


def test_missing_slice_is_refused_and_named(series: list[Path]) -> None:
    series[3].unlink()
    with pytest.raises(DicomError, match=r"5 mm gap between slices 3 and 4 of 5 \(expected 2\.5 mm\)"):
        read_dicom(series[0].parent)


def test_missing_slice_is_found_in_a_long_stack(tmp_path: Path) -> None:
    values = np.zeros((1, 2, 2, 150), dtype=np.float32)
    paths = write_series(Volume(values, Geometry((2, 2, 150), np.diag([1, 1, 0.5, 1]))), tmp_path)
    paths[148].unlink()
    with pytest.raises(DicomError, match="gap between slices 148 and 149 of 149"):
        read_dicom(tmp_path)


def test_gaps_with_the_noise_of_rounded_numbers_are_accepted(series: list[Path]) -> None:
    for sign, path in zip([1, -1, 1, 1, -1, 1], series, strict=True):
        move(path, normal_of(path) * sign * 0.02)  # 1.6 % of the spacing between neighbours
    assert_allclose(read_dicom(series[0].parent).geometry.spacing[2], 2.5, atol=0.02)


def test_one_slice_out_of_step_is_refused(series: list[Path]) -> None:
    move(series[2], normal_of(series[2]) * 0.4)
    with pytest.raises(DicomError, match="gap between slices"):
        read_dicom(series[0].parent)


def test_equal_duplicate_is_kept_once_with_a_note(series: list[Path]) -> None:
    (series[0].parent / "again.dcm").write_bytes(series[2].read_bytes())
    volume = read_dicom(series[0].parent)
    assert_array_equal(volume.array, phantom().array)
    assert any("1 of 6 slices found more than once" in note for note in volume.provenance.notes)


def test_different_duplicate_is_refused(series: list[Path]) -> None:
    copy = series[0].parent / "again.dcm"
    copy.write_bytes(series[2].read_bytes())
    edit(copy, PixelData=bytes(2 * SHAPE[0] * SHAPE[1]), InstanceNumber=99, AcquisitionNumber=7)
    with pytest.raises(DicomError, match=r"2 different images lie at slice 3 \(0003.dcm, again.dcm\)"):
        read_dicom(series[0].parent)


def test_rescale_is_applied_slice_by_slice_in_floats(series: list[Path]) -> None:
    for number, path in enumerate(series):
        edit(path, RescaleSlope=str(0.37 + number), RescaleIntercept=str(-10 * number))
    expected = phantom().array * (0.37 + np.arange(6)) - 10 * np.arange(6)
    assert_allclose(read_dicom(series[0].parent).array, expected, rtol=1e-6)


def test_tilted_stack_is_refused(series: list[Path]) -> None:
    for number, path in enumerate(series):
        along_column = np.array(pydicom.dcmread(path).ImageOrientationPatient[3:], dtype=float)
        move(path, along_column * number * 2.5 * np.tan(np.radians(14)))
    with pytest.raises(DicomError, match=r"tilted by 14\.0 degrees"):
        read_dicom(series[0].parent)


def test_slice_shifted_sideways_is_refused(series: list[Path]) -> None:
    move(series[2], np.array(pydicom.dcmread(series[2]).ImageOrientationPatient[3:], dtype=float) * 3)
    with pytest.raises(DicomError, match="slice 3 is shifted sideways by 3 mm"):
        read_dicom(series[0].parent)


def test_one_slice_takes_its_thickness_for_depth(series: list[Path]) -> None:
    volume = read_dicom(series[0])
    assert volume.array.shape == (1, 7, 5, 1)
    assert_allclose(volume.geometry.spacing, [0.7, 1.3, 2.5], atol=1e-6)
    assert "SliceThickness" in volume.provenance.notes[0]
    edit(series[0], SliceThickness=None)
    with pytest.raises(DicomError, match="one slice without SliceThickness"):
        read_dicom(series[0])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"ImagePositionPatient": None}, "0001.dcm has no ImagePositionPatient"),
        ({"ImageOrientationPatient": None}, "no ImageOrientationPatient"),
        ({"PixelSpacing": None}, "PixelSpacing is missing"),
        ({"PixelSpacing": ["0", "1"]}, "PixelSpacing is missing or not above 0"),
        ({"ImagePositionPatient": ["1", "2"]}, "0001.dcm ImagePositionPatient holds 2 numbers"),
        ({"ImageOrientationPatient": ["1", "0", "0", "0.5", "1", "0"]}, "no unit vectors at right angles"),
        ({"RescaleSlope": "0", "RescaleIntercept": "0"}, "RescaleSlope is 0"),
        ({"Rows": 0}, "claims 1 frames of 0 x 7"),
        ({"Rows": 65535, "Columns": 65535}, "claims 1 frames of 65535 x 65535"),
        ({"NumberOfFrames": 3}, "is cut short"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "palette"),
        ({"PixelData": None}, "holds no pixel data"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "is a localizer"),
        ({"Modality": "SEG"}, r"is no image \(modality SEG\)"),
    ],
)
def test_bent_header_is_refused_with_its_reason(series: list[Path], values: dict[str, Any], message: str) -> None:
    edit(series[0], **values)
    with pytest.raises(DicomError, match=message):
        read_dicom(series[0])


def test_modality_lut_is_refused(series: list[Path]) -> None:
    table = pydicom.Dataset()
    table.LUTDescriptor, table.LUTData = [2, 0, 16], bytes(4)
    edit(series[0], ModalityLUTSequence=[table])
    with pytest.raises(DicomError, match="Modality LUT"):
        read_dicom(series[0])


def test_truncated_file_is_refused_by_name_even_at_the_end_of_the_stack(series: list[Path]) -> None:
    series[-1].write_bytes(series[-1].read_bytes()[:-20])
    with pytest.raises(DicomError, match=r"0006.dcm is cut short: 50 of 70 bytes"):
        read_dicom(series[0].parent)


def test_file_cut_inside_its_header_does_not_shorten_the_series_silently(series: list[Path]) -> None:
    whole = series[-1].read_bytes()
    series[-1].write_bytes(whole[: whole.index(b"PhotometricInterpretation") if b"Photo" in whole else 900])
    with pytest.raises(DicomError, match=r"0006\.dcm"):
        read_dicom(series[0].parent)


@pytest.mark.parametrize("keyword", ["SeriesInstanceUID", "StudyInstanceUID"])
def test_blank_uids_are_refused_unless_the_rule_takes_them(series: list[Path], keyword: str) -> None:
    for path in series:
        edit(path, **{keyword: ""})
    with pytest.raises(DicomError, match="blank UID"):
        read_dicom(series[0].parent)
    volume = read_dicom(series[0].parent, SeriesRule(allow_blank_uids=True))
    assert_array_equal(volume.array, phantom().array)


@pytest.mark.parametrize("limit", [None, -1950])
def test_padding_becomes_the_smallest_other_value(tmp_path: Path, limit: int | None) -> None:
    values = phantom().array - 100
    values[0, 0] = -2000
    paths = write_series(Volume(values, phantom().geometry), tmp_path)
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.add_new("PixelPaddingValue", "SS", -2000)
        if limit is not None:
            dataset.add_new("PixelPaddingRangeLimit", "SS", limit)
        dataset.save_as(path)
    volume = read_dicom(tmp_path)
    lowest = values[values > -2000].min()
    assert_array_equal(volume.array, np.where(values == -2000, lowest, values))
    assert any("30 voxels of PixelPaddingValue" in note for note in volume.provenance.notes)


def test_colour_becomes_channels(tmp_path: Path) -> None:
    colours = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    path = write_series(phantom(), tmp_path)[0]
    attributes = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0}
    bits = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelRepresentation": 0}
    edit(path, **attributes, **bits, PixelData=colours.tobytes() + b"\0")
    volume = read_dicom(path)
    assert volume.array.shape == (3, 7, 5, 1)
    assert_array_equal(volume.array[:, 2, 4, 0], colours[4, 2])


def test_mixed_orientation_is_refused_where_forced_together(tmp_path: Path) -> None:
    from dataclasses import replace

    axial = Volume(phantom().array, Geometry(SHAPE, np.diag([1.0, 1, 1, 1])))
    turned = np.eye(4)[:, [1, 2, 0, 3]]
    write_series(axial, tmp_path / "a")
    write_series(Volume(phantom().array, Geometry(SHAPE, turned)), tmp_path / "b")
    parts = scan_series(tmp_path)
    assert len(parts) == 2
    forced = replace(parts[0], frames=parts[0].frames + parts[1].frames)
    with pytest.raises(DicomError, match="different orientations"):
        read_series(forced)


def test_no_text_of_the_patient_is_printed_or_logged(
    series: list[Path], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], recwarn: Any
) -> None:
    for path in series:
        raw = path.read_bytes()
        path.write_bytes(
            raw.replace(b"Phantom^Generated ", b"S\xe9cret^N\xe2me\x01\\^=x").replace(b"20000101", b"2000BADD")
        )
    series[0].write_bytes(series[0].read_bytes()[:-20])
    with pytest.raises(DicomError) as caught:
        read_dicom(series[0].parent)
    printed = capfd.readouterr()
    everything = str(caught.value) + caplog.text + printed.out + printed.err + "".join(str(w.message) for w in recwarn)
    assert "cret" not in everything
    assert "BADD" not in everything


def test_any_damage_gives_a_volume_or_our_own_error(series: list[Path]) -> None:
    whole, messages = series[0].read_bytes(), []
    for seed in range(60):
        rng, raw = np.random.default_rng(seed), bytearray(whole)
        for _ in range(rng.choice([1, 5, 40])):
            raw[rng.integers(132, len(raw))] = rng.integers(256)
        series[0].write_bytes(raw[: rng.integers(200, len(raw))] if seed % 4 == 0 else raw)
        try:
            read_dicom(series[0])
        except DicomError as error:
            messages.append(str(error))
    assert messages
    assert all(len(message.splitlines()) <= 2 for message in messages)
