"""A case's files as one image and one label on one grid, so that nothing after this knows of files."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from medseg.data.dataset import DatasetInfo, inside
from medseg.data.manifest import Case, Manifest
from medseg.errors import DataError, GeometryError, ManifestError
from medseg.geometry import Geometry
from medseg.io import read_image, read_label
from medseg.volume import Provenance, Segmentation, Volume, digest


@dataclass(frozen=True)
class CaseData:
    """A case as read: `image` holds the manifest's channels in order, on the grid of `label`."""

    case: Case
    image: Volume
    label: Segmentation | None


def read_case(manifest: Manifest, case: Case, data_root: Path, verify: bool = False) -> CaseData:
    """A case's image and label. `verify` compares each file with the manifest's digest.

    Several files are brought onto the grid of the first channel by linear interpolation; a voxel outside a file's
    field of view takes that file's lowest value. The label is never resampled: it must be on the grid of the first
    channel. Raises ManifestError for an absent or changed file, GeometryError where grids do not fit.
    """
    volumes = [read_image(existing(case, path, data_root)) for path in case.images]
    label = read_truth(manifest.dataset, case, data_root)
    image = _together(manifest, case, volumes)
    if label is not None and not image.geometry.matches(label.geometry):
        raise GeometryError(label_mismatch(case, image.geometry, label.geometry))
    if verify:  # last: that a file changed says less than how it does not fit
        verify_digests(case, volumes, label)
    return CaseData(case, image, label)


def read_truth(dataset: DatasetInfo, case: Case, data_root: Path) -> Segmentation | None:
    """A case's label, or None. Raises ManifestError where it is absent, or holds what was not looked for."""
    if case.label is None:
        return None
    label = read_label(existing(case, case.label, data_root), dataset.labels)
    if case.annotated is None:
        return label
    others = [name for name in dataset.labels.present(label.array) if name not in case.annotated]
    if others:
        raise ManifestError(
            f"case {case.id}: {case.label} holds {', '.join(others)}, which `annotated` in cases.csv does not list; "
            "add it there, or correct the file"
        )
    return replace(label, annotated=case.annotated)


def existing(case: Case, path: str, data_root: Path) -> Path:
    """A file of a case. Raises ManifestError that names it where it is absent or outside the data root."""
    found = inside(data_root, path, f"case {case.id}")
    if not found.exists():
        raise ManifestError(f"case {case.id}: {path} is not in {data_root}; correct --data-root, or restore the file")
    return found


def verify_digests(case: Case, volumes: list[Volume], label: Segmentation | None) -> None:
    """Raises ManifestError where a file's voxels or affine are not those that the manifest was written for."""
    found = [digest(volume.array, volume.geometry) for volume in volumes]
    if label is not None:
        found.append(digest(label.array, label.geometry))
    changed = [path for (path, kept), now in zip(case.files, found, strict=True) if kept is not None and kept != now]
    if changed:
        raise ManifestError(
            f"case {case.id}: voxels or affine of {', '.join(changed)} changed since the manifest was written; "
            "restore the file, or write the manifest anew with `medseg manifest build`"
        )


def label_mismatch(case: Case, image: Geometry, label: Geometry) -> str:
    """What to say where a label is not on its image's grid."""
    shift = ""
    if image.shape == label.shape and image.unit == label.unit:
        corners = image.corners()
        apart = np.linalg.norm(image.world(corners) - label.world(corners), axis=1).max()
        shift = f", corners up to {apart:.3g} {image.unit} apart"
    return (
        f"case {case.id}: label {case.label} ({label.describe()}) is not on the grid of its image {case.images[0]} "
        f"({image.describe()}){shift}; resample the label onto the image, or correct the pair in cases.csv"
    )


def _together(manifest: Manifest, case: Case, volumes: list[Volume]) -> Volume:
    """The channels as one volume on the first one's grid."""
    channels = manifest.dataset.channels
    for path, volume in zip(case.images, volumes, strict=True):
        expected = len(channels) if len(volumes) == 1 else 1
        if volume.channels != expected:
            raise DataError(
                f"case {case.id}: {path} holds {volume.channels} channels, not {expected}; dataset.yaml lists "
                f"{', '.join(channels)}: give one column a channel (image_{channels[0]} ...), or correct `channels`"
            )
        if volume.geometry.dims != manifest.dataset.spatial_dims:
            raise DataError(
                f"case {case.id}: {path} has {volume.geometry.dims} dimensions, dataset.yaml says "
                f"spatial_dims: {manifest.dataset.spatial_dims}; correct one of them"
            )
    if len(volumes) == 1:
        return volumes[0]
    grid = volumes[0].geometry
    arrays = [
        volumes[0].array,
        *(_onto(case, path, volume, grid) for path, volume in zip(case.images[1:], volumes[1:], strict=True)),
    ]
    first = volumes[0].provenance
    moved = [name for name, volume in zip(channels, volumes, strict=True) if not volume.geometry.matches(grid)]
    notes = (f"resampled linearly onto {channels[0]}: {', '.join(moved)}",) if moved else ()
    files = tuple(path for volume in volumes for path in volume.provenance.files)
    provenance = Provenance(first.source, files, first.format, first.modality, (*first.notes, *notes))
    return Volume(np.concatenate(arrays), grid, provenance)


def _onto(case: Case, path: str, volume: Volume, grid: Geometry) -> np.ndarray:
    """A channel on another grid, linearly interpolated, its lowest value outside its field of view."""
    if volume.geometry.matches(grid):
        return volume.array
    if not _overlap(volume.geometry, grid):
        raise GeometryError(
            f"case {case.id}: {path} ({volume.geometry.describe()}) and {case.images[0]} ({grid.describe()}) show "
            "places that do not meet; are they of one study?"
        )
    from medseg.data.resampling import resample  # imports torch: only where grids differ

    return resample(volume.array, volume.geometry, grid, mode="linear", fill=float(volume.array.min()))


def _overlap(one: Geometry, other: Geometry) -> bool:
    """Whether the boxes of two grids meet, seen in the indices of the second."""
    if one.unit != other.unit or one.dims != other.dims:
        return False
    seen = other.index(one.world(one.corners(margin=0.5)))
    return bool((seen.max(axis=0) > -0.5).all() and (seen.min(axis=0) < np.array(other.shape) - 0.5).all())
