"""Where the files of a manifest are: the folder that was given, or a public archive fetched once into a cache."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from medseg.data.dataset import DatasetInfo, Download, inside
from medseg.data.manifest import Manifest, read_dataset, read_manifest
from medseg.data.msd import INDEX
from medseg.errors import ManifestError


def open_manifest(
    folder: Path, data_root: Path | None, cache_dir: Path, progress: bool = True
) -> tuple[Manifest, Path]:
    """The manifest to work with and its data root, every file of it present.

    Without a data root the data are fetched, where dataset.yaml names an archive; where it names `fetched_as`, that
    neighbouring manifest is read instead, because the archive has a layout of its own.
    """
    dataset = read_dataset(folder)
    if data_root is None and dataset.fetched_as is not None:
        folder = folder.parent / dataset.fetched_as
        dataset = read_dataset(folder)
    root = resolve_data_root(dataset, data_root, cache_dir, progress)
    manifest = read_manifest(folder, root)
    require_files(manifest, root)
    return manifest, root


def resolve_data_root(dataset: DatasetInfo, data_root: Path | None, cache_dir: Path, progress: bool = True) -> Path:
    """The folder that a manifest's paths start from: the given one, or the data set's archive in `cache_dir`."""
    if data_root is not None:
        if not data_root.is_dir():
            raise ManifestError(f"data root {data_root} is no folder; correct --data-root")
        return data_root
    if dataset.download is None:
        other = "" if dataset.fetched_as is None else f", or take manifest {dataset.fetched_as!r}, which is fetched"
        raise ManifestError(
            f"data set {dataset.name!r} has no public archive to fetch; say with --data-root where its files are{other}"
        )
    return fetch(dataset.download, cache_dir, progress)


def require_files(manifest: Manifest, data_root: Path) -> None:
    """Raises ManifestError that counts and names the files which are not below the data root."""
    absent = [
        (case.id, path)
        for case in manifest.cases
        for path, _ in case.files
        if not inside(data_root, path, f"case {case.id}").exists()
    ]
    if absent:
        shown = ", ".join(path for _, path in absent[:3]) + (" ..." if len(absent) > 3 else "")
        total = sum(len(case.files) for case in manifest.cases)
        raise ManifestError(
            f"{len(absent)} of the {total} files of manifest {manifest.dataset.name!r} are not in {data_root} "
            f"(case {absent[0][0]}: {shown}); correct --data-root, or restore them"
        )


def fetch(download: Download, cache_dir: Path, progress: bool = True) -> Path:
    """The unpacked archive of a Decathlon task in `cache_dir`, fetched by MONAI, its MD5 compared, where absent.

    It appears under its name only when complete. Raises ManifestError where it cannot be fetched or is another one.
    """
    folder = cache_dir / download.task
    if (folder / INDEX).is_file():
        return folder
    from monai.apps import DecathlonDataset, download_url, extractall

    if download.task not in DecathlonDataset.resource:
        known = ", ".join(DecathlonDataset.resource)
        raise ManifestError(f"download.task: MONAI knows no archive {download.task!r}; known: {known}")
    url, md5 = DecathlonDataset.resource[download.task], DecathlonDataset.md5[download.task]
    if download.md5 not in (None, md5):
        raise ManifestError(
            f"download.md5: this manifest is for archive {download.md5}, MONAI now fetches {md5}; "
            "give --data-root with the files that it was written for, or correct md5"
        )
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache_dir, prefix=f".{download.task}-") as made:
            archive = Path(made) / f"{download.task}.tar"
            download_url(url, archive, hash_val=md5, hash_type="md5", progress=progress)
            extractall(archive, made)  # not download_and_extract, which raises a bare Exception when offline
            os.replace(Path(made) / download.task, folder)
    except (OSError, RuntimeError, ValueError) as error:  # no route, a refused write, a wrong MD5
        raise ManifestError(
            f"{download.task} could not be fetched into {cache_dir} ({_reason(error)}); connect to the internet and "
            "run again, or say with --data-root where its files are"
        ) from error
    return folder


def _reason(error: Exception) -> str:
    """The error in one line."""
    text = " ".join(str(getattr(error, "reason", None) or error).split())
    return text if len(text) <= 120 else text[:117] + "..."
