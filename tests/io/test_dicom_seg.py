"""What a written SEG promises: each voxel in its place for any reader, named terms, one object for one result."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK
from numpy.testing import assert_array_equal

from medseg.errors import DicomError, GeometryError, LabelError, WriteError
from medseg.geometry import Geometry
from medseg.io.dicom import (
    Series,
    SeriesDescription,
    SeriesRule,
    read_series,
    scan_series,
    select_series,
    write_dicom_seg,
    write_series,
)
from medseg.labels import CodedTerm, Label, LabelSet
from medseg.volume import Provenance, Segmentation, Volume

SHAPE = (9, 6, 7)
LABELS = LabelSet(
    labels=(
        Label(name="Anterior", value=4, type=CodedTerm(value="1210001", scheme="99MEDSEG", meaning="Anterior part")),
        Label(name="Posterior", value=2, colour=(255, 0, 0)),
    )
)
OVERLAPPING = LabelSet(kind="overlapping", labels=(Label(name="Whole", value=1), Label(name="Core", value=2)))
MADE_BY = Provenance(source="case_1", made_by="hippocampus_unet3d 1.4 3f2a")


def affine(left_handed: bool = False) -> np.ndarray:
    turn, tip = np.radians(25), np.radians(-15)
    about_z = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    about_y = np.array([[np.cos(tip), 0, np.sin(tip)], [0, 1, 0], [-np.sin(tip), 0, np.cos(tip)]])
    result = np.eye(4)
    result[:3, :3] = about_z @ about_y @ np.diag([0.8, 1.1, -3.0 if left_handed else 3.0])
    result[:3, 3] = 10, -20, 30
    return result


@pytest.fixture
def series(tmp_path: Path) -> Series:
    values = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(1, *SHAPE)
    write_series(Volume(values, Geometry(SHAPE, affine())), tmp_path / "in", SeriesDescription(description="T1"))
    return select_series(scan_series(tmp_path / "in"), None, "in")


def two_labels(geometry: Geometry) -> Segmentation:
    """A lop-sided pair of labels, so that any flip or swap of axes shows."""
    at = np.indices(geometry.shape).reshape(3, -1).T / np.array(geometry.shape)
    array = np.zeros(geometry.shape, dtype=np.int16)
    array[(np.linalg.norm(at - [0.3, 0.3, 0.4], axis=1) < 0.25).reshape(geometry.shape)] = 4
    array[(np.linalg.norm(at - [0.6, 0.75, 0.6], axis=1) < 0.2).reshape(geometry.shape)] = 2
    array[0, -1, 1] = 2
    return Segmentation(array, geometry, LABELS, MADE_BY)


def read_with_dcmqi(path: Path, folder: Path, geometry: Geometry, segments: int) -> np.ndarray:
    """bool `(S, X, Y, Z)` on a grid of ours, out of what dcmqi's segimage2itkimage makes of a SEG."""
    program = shutil.which("segimage2itkimage", path=str(Path(sys.executable).parent)) or shutil.which(
        "segimage2itkimage"
    )
    if program is None:
        pytest.skip("dcmqi is not installed")
    folder.mkdir()
    command = [program, "--inputDICOM", str(path), "--outputDirectory", str(folder)]
    subprocess.run(command, check=True, capture_output=True)
    found = np.zeros((segments, *geometry.shape), dtype=bool)
    for number in range(segments):
        image = SimpleITK.ReadImage(str(folder / f"{number + 1}.nrrd"))
        index_xyz = np.argwhere(SimpleITK.GetArrayFromImage(image))[:, ::-1]
        steps = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
        ras = (index_xyz @ steps.T + np.array(image.GetOrigin())) * [-1, -1, 1]
        ours = geometry.index(ras)
        assert not ours.size or np.abs(ours - np.rint(ours)).max() < 0.01
        found[(number, *np.rint(ours).astype(int).T)] = True
    return found


def test_dcmqi_reads_back_each_voxel_in_its_place(series: Series, tmp_path: Path) -> None:
    made = two_labels(read_series(series).geometry)
    path = write_dicom_seg(made, series, tmp_path / "seg.dcm")
    found = read_with_dcmqi(path, tmp_path / "out", made.geometry, 2)
    assert_array_equal(found, np.stack([made.array == 4, made.array == 2]))


def test_overlapping_labels_keep_their_overlap(series: Series, tmp_path: Path) -> None:
    geometry = read_series(series).geometry
    array = np.zeros((2, *SHAPE), dtype=bool)
    array[0, 1:7, 1:5, 1:6] = True
    array[1, 3:5, 2:4, 2:4] = True
    path = write_dicom_seg(Segmentation(array, geometry, OVERLAPPING, MADE_BY), series, tmp_path / "seg.dcm")
    assert pydicom.dcmread(path).SegmentsOverlap == "YES"
    assert_array_equal(read_with_dcmqi(path, tmp_path / "out", geometry, 2), array)


def test_object_says_what_made_it_and_what_it_shows(series: Series, tmp_path: Path) -> None:
    path = write_dicom_seg(two_labels(read_series(series).geometry), series, tmp_path / "seg.dcm")
    seg, source = highdicom.seg.segread(path), pydicom.dcmread(series.files[0])
    assert seg.SegmentationType == "BINARY"
    assert seg.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
    assert seg.SeriesDescription == "medseg: hippocampus_unet3d, for research use"
    assert "research use" in seg.ContentDescription
    for keyword in ("StudyInstanceUID", "PatientID", "PatientName", "FrameOfReferenceUID", "StudyDate"):
        assert seg[keyword].value == source[keyword].value
    assert seg.SeriesInstanceUID != source.SeriesInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence} == {
        pydicom.dcmread(file).SOPInstanceUID for file in series.files
    }
    first, second = seg.SegmentSequence
    assert (first.SegmentNumber, first.SegmentLabel, first.SegmentAlgorithmType) == (1, "Anterior", "AUTOMATIC")
    assert first.segmented_property_type.value == "1210001"
    assert second.SegmentLabel == "Posterior"
    algorithm = first.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("hippocampus_unet3d", "1.4 3f2a")
    red = [53.24, 80.09, 67.20]  # sRGB (255, 0, 0) under D65, up to the white point that is chosen
    lab = np.array(second.RecommendedDisplayCIELabValue) / [655.35, 257, 257] - [0, 128, 128]
    assert np.abs(lab - red).max() < 15


def test_same_result_gives_the_same_object_and_another_result_another(series: Series, tmp_path: Path) -> None:
    made = two_labels(read_series(series).geometry)
    changed = made.array.copy()
    changed[4, 3, 3] = 2 if changed[4, 3, 3] == 4 else 4
    uids = []
    for one in (
        made,
        made,
        Segmentation(changed, made.geometry, LABELS, made.provenance),
        replace(made, provenance=replace(MADE_BY, made_by="hippocampus_unet3d 1.5")),
    ):
        written = pydicom.dcmread(write_dicom_seg(one, series, tmp_path / "seg.dcm"))
        uids.append((written.SOPInstanceUID, written.SeriesInstanceUID))
    assert uids[0] == uids[1]
    assert len(set(uids)) == 3
    assert all(uid.startswith("2.25.") and len(uid) <= 64 for pair in uids for uid in pair)


def test_empty_result_is_an_object_that_says_so(series: Series, tmp_path: Path) -> None:
    geometry = read_series(series).geometry
    nothing = Segmentation(np.zeros(SHAPE, dtype=np.uint8), geometry, LABELS, MADE_BY)
    path = write_dicom_seg(nothing, series, tmp_path / "seg.dcm")
    seg = pydicom.dcmread(path)
    assert "nothing found" in seg.ContentDescription
    assert seg.NumberOfFrames == 2  # one for each segment
    assert len(seg.SourceImageSequence) == SHAPE[2]
    assert not read_with_dcmqi(path, tmp_path / "out", geometry, 2).any()


def test_label_that_is_absent_is_still_described(series: Series, tmp_path: Path) -> None:
    geometry = read_series(series).geometry
    array = np.zeros(SHAPE, dtype=np.uint8)
    array[2:4, 2:4, 2:4] = 2
    path = write_dicom_seg(Segmentation(array, geometry, LABELS, MADE_BY), series, tmp_path / "seg.dcm")
    assert [item.SegmentLabel for item in pydicom.dcmread(path).SegmentSequence] == ["Anterior", "Posterior"]


def test_voxels_to_ignore_are_background(series: Series, tmp_path: Path) -> None:
    geometry = read_series(series).geometry
    array = np.zeros(SHAPE, dtype=np.int16)
    array[1, 1, 1], array[2, 2, 2] = 4, 255
    labels = LabelSet(labels=LABELS.labels, ignore=255)
    path = write_dicom_seg(Segmentation(array, geometry, labels, MADE_BY), series, tmp_path / "seg.dcm")
    assert pydicom.dcmread(path).pixel_array.sum() == 1


def test_other_grid_is_refused_and_leaves_nothing(series: Series, tmp_path: Path) -> None:
    moved = affine()
    moved[0, 3] += 5
    with pytest.raises(GeometryError, match="resample it to the grid of the series"):
        write_dicom_seg(two_labels(Geometry(SHAPE, moved)), series, tmp_path / "seg.dcm")
    assert not (tmp_path / "seg.dcm").exists()


def test_stranger_among_the_values_is_refused(series: Series, tmp_path: Path) -> None:
    array = np.full(SHAPE, 3, dtype=np.uint8)
    with pytest.raises(LabelError, match="3"):
        write_dicom_seg(Segmentation(array, read_series(series).geometry, LABELS), series, tmp_path / "seg.dcm")


def test_folder_that_is_absent_is_a_write_error(series: Series, tmp_path: Path) -> None:
    with pytest.raises(WriteError):
        write_dicom_seg(two_labels(read_series(series).geometry), series, tmp_path / "nowhere" / "seg.dcm")


def test_blank_uids_cannot_be_referred_to(series: Series, tmp_path: Path) -> None:
    for file in series.files:
        dataset = pydicom.dcmread(file)
        dataset.StudyInstanceUID = ""
        dataset.save_as(file)
    rule = SeriesRule(allow_blank_uids=True)
    blank = select_series(scan_series(tmp_path / "in"), rule, "in")
    with pytest.raises(DicomError, match="study UID is"):
        write_dicom_seg(two_labels(read_series(blank).geometry), blank, tmp_path / "seg.dcm")


def test_bare_source_gets_blanks_and_a_derived_frame_of_reference(series: Series, tmp_path: Path) -> None:
    for file in series.files:
        dataset = pydicom.dcmread(file)
        for keyword in (
            "FrameOfReferenceUID",
            "PatientBirthDate",
            "StudyID",
            "StudyDate",
            "AccessionNumber",
            "PatientSex",
        ):
            delattr(dataset, keyword)
        dataset.save_as(file)
    bare = select_series(scan_series(tmp_path / "in"), None, "in")
    made = two_labels(read_series(bare).geometry)
    seg = pydicom.dcmread(write_dicom_seg(made, bare, tmp_path / "seg.dcm"))
    assert seg.FrameOfReferenceUID.startswith("2.25.")
    assert not seg.StudyID
    assert not seg.StudyDate
    assert_array_equal(
        read_with_dcmqi(tmp_path / "seg.dcm", tmp_path / "out", made.geometry, 2),
        np.stack([made.array == 4, made.array == 2]),
    )


def test_slices_with_a_frame_of_reference_each_are_one_series_and_one_object(series: Series, tmp_path: Path) -> None:
    for number, file in enumerate(series.files):
        dataset = pydicom.dcmread(file)
        dataset.FrameOfReferenceUID = f"1.2.3.{number}"
        dataset.save_as(file)
    odd = select_series(scan_series(tmp_path / "in"), None, "in")
    volume = read_series(odd)
    assert any("7 frames of reference" in note for note in volume.provenance.notes)
    made = two_labels(volume.geometry)
    found = read_with_dcmqi(write_dicom_seg(made, odd, tmp_path / "seg.dcm"), tmp_path / "out", made.geometry, 2)
    assert_array_equal(found, np.stack([made.array == 4, made.array == 2]))


def test_bent_values_are_left_blank_and_other_alphabets_kept(
    series: Series, tmp_path: Path, caplog: pytest.LogCaptureFixture, recwarn: pytest.WarningsRecorder
) -> None:
    for file in series.files:
        dataset = pydicom.dcmread(file)
        dataset.SpecificCharacterSet = "ISO_IR 100"
        dataset.PatientName = "M\xfcller^J\xf6rg"
        with pydicom.config.disable_value_validation():
            dataset.PatientSex, dataset.StudyDate, dataset.PatientAge = "male", "SECRET", "old"
            dataset.save_as(file)
    recwarn.clear()
    bent = select_series(scan_series(tmp_path / "in"), None, "in")
    seg = pydicom.dcmread(write_dicom_seg(two_labels(read_series(bent).geometry), bent, tmp_path / "seg.dcm"))
    assert seg.SpecificCharacterSet == "ISO_IR 192"
    assert str(seg.PatientName) == "M\xfcller^J\xf6rg"
    assert not seg.PatientSex
    assert not seg.StudyDate
    assert "SECRET" not in caplog.text + "".join(str(warning.message) for warning in recwarn)


def test_series_of_a_left_handed_volume_takes_the_result_on_the_grid_that_was_read(tmp_path: Path) -> None:
    values = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(1, *SHAPE)
    write_series(Volume(values, Geometry(SHAPE, affine(left_handed=True))), tmp_path / "in")
    series = select_series(scan_series(tmp_path / "in"), None, "in")
    made = two_labels(read_series(series).geometry)
    path = write_dicom_seg(made, series, tmp_path / "seg.dcm")
    found = read_with_dcmqi(path, tmp_path / "out", made.geometry, 2)
    assert_array_equal(found, np.stack([made.array == 4, made.array == 2]))


@pytest.mark.real
@pytest.mark.parametrize(
    ("folder", "description"),
    [
        ("dicom_hippocampus/Study1", "*HippoCrop*"),
        ("dicom_hippocampus/Study2", "*HippoCrop*"),
        ("dicom_hippocampus/Study1", "T2_reg"),
        ("dicom_hippocampus/Study2", "dT1"),
        ("dicom_edge_cases/siemens/anatomical/001", None),
        ("dicom_edge_cases/ge/anatomical/001", None),
        ("dicom_edge_cases/generic/anatomical/002_non_isotropic", None),
        ("dicom_edge_cases/philips_enhanced/anatomical/001", None),
        ("dicom_edge_cases/philips_enhanced/anatomical/001_implicit", None),
    ],
)
def test_dcmqi_reads_back_each_voxel_of_real_series(
    real_data: Path, tmp_path: Path, folder: str, description: str | None
) -> None:
    series = select_series(scan_series(real_data / folder), SeriesRule(description=description), folder)
    made = two_labels(read_series(series).geometry)
    path = write_dicom_seg(made, series, tmp_path / "seg.dcm")
    found = read_with_dcmqi(path, tmp_path / "out", made.geometry, 2)
    assert_array_equal(found, np.stack([made.array == 4, made.array == 2]))
