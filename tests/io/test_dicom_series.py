"""What the scan and the choice of a series promise: nothing lost, nothing mixed, never a guess."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydantic import ValidationError

from medseg.errors import DicomError, ReadError
from medseg.geometry import Geometry
from medseg.io.dicom import SeriesDescription, SeriesRule, read_series, scan, scan_series, select_series, write_series
from medseg.volume import Volume


def volume(slices: int = 4, value: int = 0, first: float = 0.0) -> Volume:
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[2, 3] = first
    return Volume(np.full((1, 4, 3, slices), value, dtype=np.float32), Geometry((4, 3, slices), affine))


def edit(paths: list[Path], **values: Any) -> None:
    for path in paths:
        dataset = pydicom.dcmread(path)
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        dataset.save_as(path)


def write_phases(folder: Path, keyword: str, values: list[Any]) -> None:
    """One series whose positions repeat, once for each value of an attribute."""
    for number, value in enumerate(values):
        paths = write_series(volume(value=number), folder / str(number))
        edit(paths, **{keyword: value})


@pytest.fixture
def study(tmp_path: Path) -> Path:
    write_series(volume(8), tmp_path / "a", SeriesDescription(description="T1 post", number=1))
    write_series(volume(5), tmp_path / "b", SeriesDescription(description="HippoCrop", number=2))
    write_series(volume(6), tmp_path / "c", SeriesDescription(description="Abdomen", modality="CT", number=3))
    return tmp_path


def test_rule_picks_by_each_of_its_fields(study: Path) -> None:
    series = scan_series(study)
    assert [len(one.files) for one in series] == [8, 5, 6]
    chosen = {
        "HippoCrop": SeriesRule(description="*hippocrop*"),
        "Abdomen": SeriesRule(modality="CT"),
        "T1 post": SeriesRule(min_slices=7),
    }
    for description, rule in chosen.items():
        assert select_series(series, rule, "here").description == description
    by_uid = SeriesRule(series_uid=series[1].uid, study_uid=series[0].study_uid, orientation="axial")
    assert select_series(series, by_uid, "here") == series[1]


def test_several_candidates_are_listed_without_the_patient(study: Path) -> None:
    with pytest.raises(DicomError) as caught:
        select_series(scan_series(study), None, str(study))
    message = str(caught.value)
    assert all(text in message for text in ("'T1 post' MR 8 slices", "'HippoCrop' MR 5 slices", "--series '*T1 post*'"))
    assert "Phantom^" not in message


def test_no_candidate_says_what_there_is(study: Path) -> None:
    with pytest.raises(DicomError, match=r"no series fits \(modality=PT\); there are: 'T1 post' MR"):
        select_series(scan_series(study), SeriesRule(modality="PT"), "here")


def test_misspelt_rule_is_refused() -> None:
    with pytest.raises(ValidationError):
        SeriesRule.model_validate({"descripton": "*"})


def test_rule_needs_no_dicom_library() -> None:
    code = "import sys, medseg.io.dicom.rule; print([m for m in ('pydicom', 'highdicom', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.strip() == "[]"


def test_junk_between_the_files_changes_nothing(study: Path) -> None:
    (study / "a" / "README.txt").write_text("hello")
    (study / "a" / ".DS_Store").write_bytes(b"\0" * 4000)
    (study / "a" / "empty").touch()
    (study / "a" / "zip").write_bytes(b"PK\3\4" + bytes(300))
    os.mkfifo(study / "a" / "pipe")
    for path in (study / "a").glob("*.dcm"):
        path.rename(path.with_suffix(""))
    found = scan(study)
    assert [len(one.files) for one in found.series] == [8, 5, 6]
    assert {refusal.file.name for refusal in found.refused} == {"README.txt", ".DS_Store", "empty", "zip", "pipe"}
    assert len(scan_series(study)) == 3


def test_links_out_of_the_tree_are_not_followed(study: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside")
    paths = write_series(volume(3), outside / "x", SeriesDescription(description="Foreign"))
    (study / "folder").symlink_to(outside / "x")
    (study / "file.dcm").symlink_to(paths[0])
    (study / "broken").symlink_to(outside / "nowhere")
    (study / "loop").symlink_to(study)
    found = scan(study)
    assert [one.description for one in found.series] == ["T1 post", "HippoCrop", "Abdomen"]
    assert {refusal.file.name for refusal in found.refused} == {"folder", "file.dcm", "broken", "loop"}


def test_damaged_file_is_listed_with_its_reason(study: Path) -> None:
    (study / "a" / "damaged.dcm").write_bytes(bytes(128) + b"DICM" + bytes(range(3)))
    listed = [one for one in scan_series(study) if not one.is_image]
    assert len(listed) == 1
    assert listed[0].files[0].name == "damaged.dcm"
    assert listed[0].refusal is not None
    chosen = select_series(scan_series(study), SeriesRule(description="T1*"), "here")
    assert any("damaged" in note for note in read_series(chosen).provenance.notes)


def test_absent_folder_is_a_read_error(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="does not exist"):
        scan_series(tmp_path / "nowhere")


def test_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DicomError, match="holds no DICOM image"):
        select_series(scan_series(tmp_path), None, str(tmp_path))


def test_objects_that_are_no_images_are_listed_and_never_chosen(study: Path) -> None:
    edit(sorted((study / "a").glob("*")), Modality="RTDOSE")
    series = scan_series(study)
    assert [one.is_image for one in series] == [False, True, True]
    with pytest.raises(DicomError, match="no series fits"):
        select_series(series, SeriesRule(description="T1*"), "here")


@pytest.mark.parametrize(
    ("keyword", "values", "part"),
    [
        ("EchoTime", ["20", "40", "60"], "echo time 20.00 ms"),
        ("EchoNumbers", [1, 2], "echo 1"),
        ("TemporalPositionIdentifier", [1, 2, 3], "phase 1"),
        ("AcquisitionNumber", [4, 5], "acquisition 4"),
        ("DiffusionBValue", [0.0, 1000.0], "b-value 0"),
        ("ImageType", [["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"]], "image type ORIGINAL/PRIMARY/M"),
    ],
)
def test_phases_of_one_series_come_apart(tmp_path: Path, keyword: str, values: list[Any], part: str) -> None:
    write_phases(tmp_path, keyword, values)
    series = scan_series(tmp_path)
    assert len(series) == len(values)
    assert len({one.uid for one in series}) == 1
    for one in series:
        read = read_series(one)
        assert read.array.shape == (1, 4, 3, 4)
        assert len(np.unique(read.array)) == 1  # no slice of another phase
    assert select_series(series, SeriesRule(part=f"{part}*"), "here").part == part
    with pytest.raises(DicomError, match=part):
        select_series(series, None, "here")


def test_attribute_that_changes_from_slice_to_slice_does_not_shatter_a_series(tmp_path: Path) -> None:
    paths = write_series(volume(6), tmp_path)
    for number, path in enumerate(paths):
        edit([path], AcquisitionNumber=number)
    (tmp_path / "again.dcm").write_bytes(paths[2].read_bytes())
    edit([tmp_path / "again.dcm"], AcquisitionNumber=99)
    series = scan_series(tmp_path)
    assert len(series) == 1
    assert read_series(series[0]).array.shape == (1, 4, 3, 6)


def test_localizer_in_another_plane_comes_apart(tmp_path: Path) -> None:
    write_series(volume(5), tmp_path / "stack")
    turned = np.eye(4)[:, [1, 2, 0, 3]]
    scout = Volume(np.zeros((1, 4, 3, 1), dtype=np.float32), Geometry((4, 3, 1), turned))
    write_series(scout, tmp_path / "scout")
    series = scan_series(tmp_path)
    assert sorted(one.plane for one in series) == ["axial", "sagittal"]
    assert select_series(series, SeriesRule(orientation="axial"), "here").positions[0][2] == 0
    assert select_series(series, SeriesRule(min_slices=2), "here").plane == "axial"


def test_other_image_size_comes_apart(tmp_path: Path) -> None:
    write_series(volume(5), tmp_path / "a")
    write_series(Volume(np.zeros((1, 8, 8, 2), np.float32), Geometry((8, 8, 2), np.eye(4))), tmp_path / "b")
    assert [one.part for one in scan_series(tmp_path)] == ["4 x 3", "8 x 8"]


def test_cosines_with_the_noise_of_rounded_numbers_stay_together(tmp_path: Path) -> None:
    paths = write_series(volume(4), tmp_path)
    edit(paths[:2], ImageOrientationPatient=["-1", "0.0000001", "0", "0", "-1", "0"])
    assert len(scan_series(tmp_path)) == 1


def test_description_of_many_lines_is_shown_on_one(tmp_path: Path) -> None:
    edit(write_series(volume(2), tmp_path), SeriesDescription="one\x0btwo\x1b[31m")
    described = scan_series(tmp_path)[0].describe()
    assert described.isprintable()


def _without_preamble(path: Path, form: str) -> bytes:
    """A DICOM file whose first 132 bytes are lost, or one of the data set alone, in either encoding."""
    if form == "lost":
        return path.read_bytes()[132:]
    dataset = pydicom.dcmread(path)
    if form == "implicit":
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    dataset.SpecificCharacterSet = "ISO_IR 100"
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, implicit_vr=form == "implicit", little_endian=True)
    whole = buffer.getvalue()
    return whole[whole.index(b"\x08\x00\x05\x00") :]


@pytest.mark.parametrize("form", ["lost", "explicit", "implicit"])
def test_files_without_preamble_are_refused_aloud(tmp_path: Path, form: str) -> None:
    for path in write_series(volume(3), tmp_path):
        path.write_bytes(_without_preamble(path, form))
    refused = scan(tmp_path).refused
    assert [one.is_dicom for one in refused] == [True] * 3
    with pytest.raises(DicomError, match=r"holds no image series .* lacks the preamble .* dcmconv \(and 2 more"):
        select_series(scan_series(tmp_path), None, str(tmp_path))


def test_one_slice_without_preamble_is_noted_beside_its_series(tmp_path: Path) -> None:
    paths = write_series(volume(4), tmp_path)
    paths[-1].write_bytes(_without_preamble(paths[-1], "lost"))
    found = scan(tmp_path)
    assert len(found.refused) == 1
    assert paths[-1].name in str(found.series[0].notes)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x08\x00",
        b"\x08\x00\x05\x00",
        b"\x08\x00" * 600,
        b"\x02\x00\x03\x00" + bytes(500),
        b"subject,age\n1,50\n",
    ],
)
def test_other_files_are_not_taken_for_dicom(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other").write_bytes(content)
    assert [one.is_dicom for one in scan(tmp_path).refused] == [False]
