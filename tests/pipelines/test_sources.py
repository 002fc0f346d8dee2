"""What a person names is segmented or refused; nothing that a folder holds is dropped without a word."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from medseg.data.phantoms import phantom
from medseg.errors import ConfigError, ReadError
from medseg.io import write_nifti
from medseg.io.dicom import SeriesDescription, write_series
from pipelines.sources import Source, list_sources, series_rule

SHAPE = (6, 7, 5)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    write_series(phantom(0, SHAPE)[0], tmp_path / "study" / "series", SeriesDescription())
    return tmp_path / "study"


def names(sources: list[Source]) -> list[str]:
    return [source.name for source in sources]


def test_pictures_on_top_of_a_study_do_not_hide_it(study: Path) -> None:
    for name in ("preview.jpg", "key.PNG"):
        (study / name).write_bytes(b"picture")
    (study / "._preview.jpg").write_bytes(b"junk")
    found = list_sources([study], ["dicom-seg"])
    assert found == [Source(study, "study", is_dicom=True, left_out=("key.PNG", "preview.jpg"))]


def test_a_folder_of_dicom_and_volumes_is_refused_with_both_named(study: Path) -> None:
    write_nifti(phantom(0, SHAPE)[0], study / "a.nii.gz")
    with pytest.raises(ConfigError, match=r"image files \(a\.nii\.gz\) and DICOM files \(series/.*by name"):
        list_sources([study], ["nifti"])


def test_a_folder_of_images_gives_each_but_what_the_system_left(tmp_path: Path) -> None:
    for name in ("b.nii.gz", "a.nrrd", "p.png", "._b.nii.gz", ".DS_Store", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    found = list_sources([tmp_path], ["nifti"])
    assert names(found) == ["a", "b", "p"]
    assert not any(source.is_dicom for source in found)


def test_a_folder_of_nothing_is_taken_for_a_study(tmp_path: Path) -> None:
    (tmp_path / ".DS_Store").write_bytes(b"x")
    assert list_sources([tmp_path], ["nifti"]) == [Source(tmp_path, tmp_path.name, is_dicom=True)]


def test_results_of_equal_names_are_told_apart(tmp_path: Path) -> None:
    paths = [tmp_path / one / name for one, name in (("a", "x.nii"), ("b", "x.nii.gz"), ("c", "x.nrrd"))]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(b"x")
    assert names(list_sources(paths, ["nifti"])) == ["x", "x-2", "x-3"]


def test_a_closed_folder_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The superuser may open every folder, so the system's answer is given in its place."""

    def closed(path: Path) -> Iterator[Path]:
        raise PermissionError(13, os.strerror(13), str(path))

    monkeypatch.setattr(Path, "iterdir", closed)
    with pytest.raises(ReadError, match=r"cannot be read \(Permission denied\); check its rights"):
        list_sources([tmp_path], ["nifti"])


def test_a_rule_is_made_of_a_pattern_and_keys() -> None:
    rule = series_rule(["*T1*", "min_slices=5"], "MR")
    assert (rule.description, rule.min_slices, rule.modality) == ("*T1*", 5, "MR")
