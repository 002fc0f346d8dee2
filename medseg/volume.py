"""The values that cross the edges of the system: an image with its place, and what was found in it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from medseg.errors import GeometryError
from medseg.geometry import Geometry
from medseg.labels import LabelSet


@dataclass(frozen=True)
class Provenance:
    """Where an array came from. `notes` say what the reader decided, for instance which affine it took."""

    source: str = "memory"  # what a message may call it: a path, or a series UID
    files: tuple[Path, ...] = ()
    format: str = "array"  # nifti, nrrd, metaimage, picture, dicom, array
    modality: str | None = None  # DICOM's code: MR, CT, PT
    notes: tuple[str, ...] = ()
    made_by: str | None = None  # for a segmentation: model name, version and digest


@dataclass(frozen=True, eq=False)
class Volume:
    """An image: array `(C, X, Y, Z)` or `(C, X, Y)` of real numbers, on one grid."""

    array: np.ndarray
    geometry: Geometry
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        if self.array.shape[1:] != self.geometry.shape:
            raise GeometryError(
                f"{self.provenance.source}: array {self.array.shape} does not fill the grid {self.geometry.shape}"
            )

    @property
    def channels(self) -> int:
        return int(self.array.shape[0])


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Labels on a grid: integers `(X, Y, Z)` of an exclusive LabelSet, or bool `(S, X, Y, Z)` of an overlapping one."""

    array: np.ndarray
    geometry: Geometry
    labels: LabelSet
    provenance: Provenance = field(default_factory=Provenance)

    def __post_init__(self) -> None:
        expected = self.geometry.shape if self.labels.is_exclusive else (len(self.labels.labels), *self.geometry.shape)
        if self.array.shape != expected:
            raise GeometryError(f"{self.provenance.source}: label {self.array.shape} does not fill the grid {expected}")

    def mask(self, name: str) -> np.ndarray:
        """Where a label or region lies, bool on the grid."""
        return self.labels.mask(self.array, name)

    def volume_ml(self, name: str) -> float:
        """Volume of a label or region in millilitres (1000 mm3)."""
        return float(self.mask(name).sum()) * self.geometry.voxel_volume / 1000.0


def digest(array: np.ndarray, geometry: Geometry) -> str:
    """SHA-256 over voxel values, shape and affine: the same for any data type, compression or file format.

    Values count as float64, the affine to 4 decimals, so that a file written anew by another tool still matches.
    """
    sha = hashlib.sha256(repr(array.shape).encode())
    sha.update((np.round(geometry.affine, 4) + 0.0).tobytes())
    for part in np.atleast_1d(array):  # one channel, or one slab, at a time: bounded memory
        sha.update(np.ascontiguousarray(part, dtype="<f8").tobytes())
    return sha.hexdigest()
