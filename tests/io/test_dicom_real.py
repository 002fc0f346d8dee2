"""The DICOM room on real files: clean ones against other readers, bad ones against its promise of one clear error."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from numpy.testing import assert_allclose, assert_array_equal

from medseg.errors import DicomError, MedsegError
from medseg.io.dicom import SeriesRule, read_dicom, read_series, scan, scan_series, select_series

pytestmark = pytest.mark.real

CLEAN = (
    "dicom_hippocampus/Study1/12-T1post-05670",
    "dicom_hippocampus/Study1/13_HCropVolume",
    "dicom_hippocampus/Study2/14_HCropVolume",
    "dicom_hippocampus/Study2/32500-dT1-49467",
    "dicom_edge_cases/siemens/anatomical/001",
    "dicom_edge_cases/ge/anatomical/001",
    "dicom_edge_cases/generic/anatomical/001_implicit",
    "dicom_edge_cases/generic/anatomical/002_non_isotropic",
)


def read_with_simpleitk(folder: Path) -> SimpleITK.Image:
    reader = SimpleITK.ImageSeriesReader()
    uids = SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))
    assert len(uids) == 1
    reader.SetFileNames(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), uids[0]))
    reader.SetOutputPixelType(SimpleITK.sitkFloat64)
    return reader.Execute()


@pytest.mark.parametrize("folder", CLEAN)
def test_clean_series_agree_with_simpleitk_in_the_patient(real_data: Path, folder: str) -> None:
    volume, image = read_dicom(real_data / folder), read_with_simpleitk(real_data / folder)
    assert image.GetSize() == volume.geometry.shape
    rng = np.random.default_rng(0)
    for _ in range(200):
        index = [int(rng.integers(size)) for size in image.GetSize()]
        ras = np.array(image.TransformIndexToPhysicalPoint(index)) * [-1, -1, 1]
        at = volume.geometry.index(ras[None])[0]
        assert np.abs(at - np.rint(at)).max() < 0.02  # SimpleITK takes the distance of the first two slices for all
        assert_allclose(volume.array[(0, *np.rint(at).astype(int))], image.GetPixel(index), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("folder", ["panimg_dicom_slope", "panimg_dicom_intercept", "panimg_dicom_window_level"])
def test_slope_of_each_slice_is_its_own(real_data: Path, folder: str) -> None:
    """Two slices of int16 that differ in slope or intercept alone."""
    files = [real_data / "dicom_enhanced_vs_classic" / folder / name for name in ("1.dcm", "2.dcm")]
    sources = [pydicom.dcmread(file) for file in files]
    expected = [
        np.frombuffer(source.PixelData, "<i2").reshape(2, 3).T * float(source.RescaleSlope)
        + float(source.RescaleIntercept)
        for source in sources
    ]
    assert_allclose(read_dicom(files[0].parent).array[0], np.stack(expected, axis=-1), rtol=1e-6)


@pytest.mark.parametrize("twin", ["MR_small_RLE", "MR_small_jpeg_ls_lossless", "MR_small_bigendian"])
def test_encodings_of_one_slice_give_equal_voxels(real_data: Path, twin: str) -> None:
    folder = real_data / "bad_input_dicom" / "pydicom"
    plain = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(folder / "MR_small_RLE.dcm")))
    assert_array_equal(read_dicom(folder / f"{twin}.dcm").array[0], plain.transpose(2, 1, 0))


def test_codecs_give_equal_voxels(real_data: Path) -> None:
    folders = sorted((real_data / "dicom_edge_cases" / "generic").glob("compressed*"))
    volumes = [read_dicom(folder) for folder in folders]
    assert len(volumes) == 5
    for volume in volumes[1:]:
        assert_array_equal(volume.array, volumes[0].array)
        assert_allclose(volume.geometry.affine, volumes[0].geometry.affine)
    reference = SimpleITK.GetArrayFromImage(read_with_simpleitk(folders[0] / "001"))
    assert sorted(reference.ravel()) == sorted(volumes[0].array.ravel())


def test_enhanced_equals_its_classic_twin(real_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(real_data / "dicom_enhanced_vs_classic" / "phantom_ct_classic_and_enhanced.zip") as archive:
        archive.extractall(tmp_path)
    enhanced = next(tmp_path.rglob("volume.dcm"))
    classic = tmp_path / "classic"
    classic.mkdir()
    for path in tmp_path.rglob("slice*.dcm"):
        path.rename(classic / path.name)
    one, other = read_dicom(enhanced), read_dicom(classic)
    assert one.array.shape == (1, 512, 512, 7)
    assert_array_equal(one.array, other.array)
    assert_allclose(one.geometry.affine, other.geometry.affine)


def test_phases_of_a_4d_ct_are_volumes_of_their_own(real_data: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(real_data / "dicom_enhanced_vs_classic" / "panimg_dicom_4d.zip") as archive:
        archive.extractall(tmp_path)
    enhanced = real_data / "dicom_enhanced_vs_classic" / "panimg_dicom_4d_enhanced"
    for folder in (tmp_path, enhanced):
        series = scan_series(folder)
        assert len(series) == 19
        assert {read_series(one).array.shape for one in series} == {(1, 3, 2, 4)}


def test_enhanced_frames_take_the_slope_of_their_functional_group(real_data: Path) -> None:
    volume = read_dicom(real_data / "dicom_edge_cases" / "philips_enhanced" / "anatomical" / "001")
    assert volume.array.shape == (1, 256, 256, 8)
    assert_allclose(volume.geometry.spacing, [1, 1, 1.2], atol=1e-4)
    steps = volume.array / 4.25885225885225
    assert_allclose(steps, np.rint(steps), atol=1e-3)


@pytest.mark.parametrize(
    ("folder", "message"),
    [
        ("ct_j2k_blank_uids", "allow_blank_uids"),
        ("failing/gantrytilting/001", r"tilted by 14\.0 degrees"),
        ("failing/notavolume/001", "4 series fit"),
        ("failing/sliceincrement/001", r"10 mm gap between slices 3 and 4 of 4 \(expected 5 mm\)"),
        ("failing/sliceincrement/002", r"gap between slices 3 and 4 of 4"),
        ("failing/sliceorientation/001", "2 series fit"),
        ("ge/anatomical/001_single_slice", "one slice without SliceThickness"),
    ],
)
def test_hard_series_are_refused_for_the_right_reason(real_data: Path, folder: str, message: str) -> None:
    with pytest.raises(DicomError, match=message):
        read_dicom(real_data / "dicom_edge_cases" / folder)


def test_blank_uids_can_be_taken_by_rule(real_data: Path) -> None:
    volume = read_dicom(real_data / "dicom_edge_cases" / "ct_j2k_blank_uids", SeriesRule(allow_blank_uids=True))
    assert volume.array.shape == (1, 512, 512, 20)
    assert volume.array.min() == -1024
    assert_allclose(volume.geometry.spacing, [0.9765625, 0.9765625, 2.0])


def test_hippocampus_series_is_found_in_each_study(real_data: Path) -> None:
    for study, shape in (("Study1", (1, 35, 51, 32)), ("Study2", (1, 36, 48, 35))):
        series = scan_series(real_data / "dicom_hippocampus" / study)
        assert len(series) == 3
        with pytest.raises(DicomError, match="'HippoCrop' MR"):
            select_series(series, None, study)
        chosen = select_series(series, SeriesRule(description="*hippocrop*"), study)
        assert read_series(chosen).array.shape == shape


def test_mixed_archive_is_accounted_for_file_by_file(real_data: Path) -> None:
    root = real_data / "dicom_dicomdir_archive"
    found = scan(root)
    files = {path for path in root.rglob("*") if path.is_file()}
    listed = {file for one in found.series for file in one.files} | {refusal.file for refusal in found.refused}
    assert listed == files
    assert not any(file.name.startswith("DICOMDIR") for one in found.series for file in one.files)


def test_every_bad_file_and_folder_gives_a_volume_or_one_clear_error(
    real_data: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    roots = [real_data / name for name in ("bad_input_dicom", "dicom_edge_cases", "dicom_enhanced_vs_classic")]
    files = [path for root in roots for path in sorted(root.rglob("*")) if path.is_file()]
    folders = sorted({path.parent for path in files})
    volumes, messages = [], {}
    for path in [*files, *folders]:
        try:
            volumes.append(read_dicom(path))
        except MedsegError as error:
            messages[path] = str(error)
    assert len(volumes) > 20
    assert len(messages) > 60
    assert all(volume.array.ndim == 4 and np.isfinite(volume.array).all() for volume in volumes)
    assert [path for path, text in messages.items() if len(text.splitlines()) > 2] == []
    assert [path for path, text in messages.items() if path.name not in text and "series " not in text] == []
    printed = capfd.readouterr()
    assert printed.out + printed.err == ""
    assert not recwarn.list


@pytest.mark.slow
def test_large_ct_whose_slices_each_name_a_frame_of_reference_is_one_volume(real_data: Path) -> None:
    volume = read_dicom(real_data / "ct_large_lidc0314")
    assert volume.array.shape == (1, 512, 512, 202)
    assert any("202 frames of reference" in note for note in volume.provenance.notes)
