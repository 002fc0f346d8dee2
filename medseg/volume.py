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
    """Labels on a grid: integers `(X, Y, Z)` of an exclusive LabelSet, or bool `(S, X, Y, Z)` of an overlapping one.

    `annotated` names the labels that somebody looked for; the others may lie unmarked in the background.
    """

    array: np.ndarray
    geometry: Geometry
    labels: LabelSet
    provenance: Provenance = field(default_factory=Provenance)
    annotated: tuple[str, ...] | None = None  # None: all

    def __post_init__(self) -> None:
        expected = self.geometry.shape if self.labels.is_exclusive else (len(self.labels.labels), *self.geometry.shape)
        if self.array.shape != expected:
            raise GeometryError(f"{self.provenance.source}: label {self.array.shape} does not fill the grid {expected}")

    def mask(self, name: str) -> np.ndarray:
        """Where a label or region lies, bool on the grid."""
        return self.labels.mask(self.array, name)

    def volume_ml(self, name: str) -> float:
        """Volume of a label or region in millilitres (1000 mm3). Raises GeometryError for 2D grids and pixels."""
        if self.geometry.dims != 3 or self.geometry.unit != "mm":
            raise GeometryError(
                f"{self.provenance.source}: {self.geometry.describe()} hold no millilitres; count the voxels of "
                f"mask({name!r}) instead"
            )
        return float(self.mask(name).sum()) * self.geometry.voxel_volume / 1000.0


def digest(array: np.ndarray, geometry: Geometry) -> str:
    """SHA-256 over voxel values, shape and affine: the same for any data type, compression or file format.

    Values count as float64; the affine in steps (`_steps`), so that a file written anew by another tool still matches.
    """
    sha = hashlib.sha256(repr(array.shape).encode())
    sha.update(_steps(geometry).tobytes())
    for part in np.atleast_1d(array):  # one channel, or one slab, at a time: bounded memory
        sha.update(np.ascontiguousarray(part, dtype="<f8").tobytes())
    return sha.hexdigest()


# Where a number tips into the next step, as a share of it. Rounding tips at one half, which 0.78125 or 0.46875 mm meet
# exactly, so that noise of a header's float32 decides. Of 13 000 spacings in use (0.1 to 8 mm in steps of 1/1000 and
# 1/256, thirds to ninths, and fields of view divided by 64 to 1024 voxels), of either sign, none lies nearer to this
# share of 1/1000 mm than 1.7e-6 of itself; float32 is exact to 6e-8. The search ran over shares in steps of 0.0005.
_TIPS_AT = 0.2985
_AXIS_STEP, _ORIGIN_STEP = 1e-3, 1e-2  # mm: an axis is walked hundreds of times, an origin is large and so is its noise


def _steps(geometry: Geometry) -> np.ndarray:
    """The affine in whole steps, `(dims, dims + 1)` float64: 0.001 mm of an axis, 0.01 mm of the origin.

    An origin or an oblique axis may be any number, and any rule tips somewhere: float32 noise on one that happens to
    lie there still shows, about once in a thousand origins.
    """
    dims = geometry.dims
    step = np.array([_AXIS_STEP] * dims + [_ORIGIN_STEP])
    return np.ascontiguousarray(np.floor(geometry.affine[:dims] / step + (1 - _TIPS_AT)) + 0.0, dtype="<f8")
