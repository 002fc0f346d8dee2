"""A small study that a program can work on: phantoms as files, their manifest, and an experiment on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from medseg.config import merge
from medseg.data.dataset import Case, DatasetInfo
from medseg.data.manifest import Manifest, write_manifest
from medseg.data.phantoms import PHANTOM_LABELS, phantom
from medseg.io import write_nifti


def write_phantoms(
    manifest: Path,
    root: Path,
    folds: Sequence[int],
    shape: tuple[int, int, int] = (20, 26, 18),
    sites: Sequence[str] = (),
) -> None:
    """A manifest of phantoms p0, p1 ..., one in each fold given: images/p0.nii.gz and labels/p0.nii.gz below the root.

    `sites`, one a case, become a column of it.
    """
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    cases = []
    for number, fold in enumerate(folds):
        image, label = phantom(number, shape)
        paths = f"images/p{number}.nii.gz", f"labels/p{number}.nii.gz"
        write_nifti(image, root / paths[0])
        write_nifti(label, root / paths[1])
        columns = {"site": sites[number]} if sites else {}
        cases.append(Case(f"p{number}", f"p{number}", fold, paths[:1], paths[1], columns=columns))
    dataset = DatasetInfo(
        name="phantoms", version="1", licence="CC0-1.0", source="generated", channels=("MR",), labels=PHANTOM_LABELS
    )
    write_manifest(Manifest(dataset, tuple(cases), manifest))


def write_experiment(path: Path, **changes: Any) -> Path:
    """A tiny 3D U-Net on the folder `manifest` beside the file and named after it, with these changes."""
    experiment = {
        "name": path.stem,
        "data": {"manifest": str(path.parent / "manifest")},
        "patch": {"size": [16, 16, 16]},
        "network": {"name": "unet", "channels": [4, 8]},
        "training": {"batch_size": 2, "workers": 0},
    }
    path.write_text(yaml.safe_dump(merge(experiment, changes)))
    return path
