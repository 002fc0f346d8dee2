"""A data root is the one given, the cached archive, or an error that says both ways."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from medseg.data.download import open_manifest, resolve_data_root
from medseg.data.manifest import Case, DatasetInfo, Download, Manifest, write_manifest
from medseg.errors import ManifestError
from medseg.labels import Label, LabelSet

TASK = "Task04_Hippocampus"
LABELS = LabelSet(labels=(Label(name="liver", value=1),))


def _dataset(**changes: object) -> DatasetInfo:
    content = {"name": "phantom", "version": "1", "licence": "x", "source": "x", "channels": ["MR"], "labels": LABELS}
    return DatasetInfo.model_validate({**content, **changes})


def _archive_content(folder: Path) -> None:
    """The files of a small official task: six cases."""
    entries = []
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for number in range(6):
        for part in ("imagesTr", "labelsTr"):
            np.zeros(1).tofile(folder / part / f"h_{number}.nii.gz")
        entries.append({"image": f"./imagesTr/h_{number}.nii.gz", "label": f"./labelsTr/h_{number}.nii.gz"})
    (folder / "dataset.json").write_text(json.dumps({"training": entries, "test": []}))


def test_given_data_root_is_taken(tmp_path: Path) -> None:
    assert resolve_data_root(_dataset(), tmp_path, tmp_path / "cache") == tmp_path


def test_data_root_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match="--data-root"):
        resolve_data_root(_dataset(), tmp_path / "absent", tmp_path / "cache")


def test_without_archive_and_data_root_the_fix_is_said(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"no public archive.*--data-root"):
        resolve_data_root(_dataset(), None, tmp_path)


def test_cached_archive_is_taken_without_a_fetch(tmp_path: Path) -> None:
    _archive_content(tmp_path / TASK)
    assert resolve_data_root(_dataset(download=Download(task=TASK)), None, tmp_path) == tmp_path / TASK


@pytest.mark.slow
class TestFetch:
    """Against a server of our own: MONAI's table of addresses points at a file."""

    @pytest.fixture
    def archive(self, tmp_path: Path) -> Path:
        _archive_content(tmp_path / "made" / TASK)
        path = tmp_path / "server.tar"
        with tarfile.open(path, "w") as tar:
            tar.add(tmp_path / "made" / TASK, arcname=TASK)
        return path

    @pytest.fixture
    def served(self, archive: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        import hashlib

        from monai.apps import DecathlonDataset

        md5 = hashlib.md5(archive.read_bytes(), usedforsecurity=False).hexdigest()
        monkeypatch.setitem(DecathlonDataset.resource, TASK, archive.as_uri())
        monkeypatch.setitem(DecathlonDataset.md5, TASK, md5)
        return archive

    def test_archive_is_fetched_once_and_appears_whole(self, served: Path, tmp_path: Path) -> None:
        dataset, cache = _dataset(download=Download(task=TASK)), tmp_path / "cache"
        root = resolve_data_root(dataset, None, cache, progress=False)
        assert (root / "imagesTr" / "h_0.nii.gz").is_file()
        served.unlink()
        assert resolve_data_root(dataset, None, cache, progress=False) == root
        assert [path.name for path in cache.iterdir()] == [TASK]

    def test_manifest_of_the_archives_layout_stands_in(self, served: Path, tmp_path: Path) -> None:
        official = _dataset(name="official", layout="msd", folds="nnunet", download={"task": TASK})
        write_manifest(Manifest(official, (), tmp_path / "official"))
        case = Case("a", "a", 0, ("a.nii",), "b.nii")
        folder = write_manifest(Manifest(_dataset(fetched_as="official"), (case,), tmp_path / "own"))
        manifest, root = open_manifest(folder, None, tmp_path / "cache", progress=False)
        assert manifest.dataset.name == "official"
        assert len(manifest.cases) == 6
        assert root.name == TASK
        with pytest.raises(ManifestError, match=r"2 of the 2 files .*a\.nii, b\.nii"):
            open_manifest(folder, tmp_path, tmp_path / "cache")

    def test_damaged_archive_is_refused_and_leaves_nothing(self, served: Path, tmp_path: Path) -> None:
        served.write_bytes(served.read_bytes() + b"\0" * 512)
        with pytest.raises(ManifestError, match=r"md5.*--data-root"):
            resolve_data_root(_dataset(download=Download(task=TASK)), None, tmp_path / "cache", progress=False)
        assert list((tmp_path / "cache").iterdir()) == []

    def test_without_the_internet_both_ways_are_said(self, served: Path, tmp_path: Path) -> None:
        served.unlink()
        with pytest.raises(ManifestError, match=r"connect to the internet.*--data-root"):
            resolve_data_root(_dataset(download=Download(task=TASK)), None, tmp_path / "cache", progress=False)

    def test_other_archive_than_the_manifests_is_refused(self, served: Path, tmp_path: Path) -> None:
        with pytest.raises(ManifestError, match="MONAI now fetches"):
            resolve_data_root(_dataset(download=Download(task=TASK, md5="0")), None, tmp_path, progress=False)

    def test_unknown_task_is_refused_with_the_known(self, tmp_path: Path) -> None:
        with pytest.raises(ManifestError, match=TASK):
            resolve_data_root(_dataset(download=Download(task="Task99")), None, tmp_path, progress=False)
