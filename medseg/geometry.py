"""Where a grid of voxels lies in the patient, so that shapes never travel without their place."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medseg.errors import GeometryError


@dataclass(frozen=True, eq=False)
class Geometry:
    """A grid and its affine from voxel index to world: `(X, Y, Z)` and 4 x 4, or `(X, Y)` and 3 x 3.

    World is RAS+ (right, anterior, superior) in mm as nibabel has it, or pixels where a picture knows no mm.
    Index (0, 0, 0) is the centre of the first voxel. Raises GeometryError for an affine that cannot be inverted.
    """

    shape: tuple[int, ...]
    affine: np.ndarray
    unit: Literal["mm", "px"] = "mm"

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        dims = len(self.shape)
        if affine.shape != (dims + 1, dims + 1):
            raise GeometryError(
                f"a grid of shape {self.shape} needs an affine of {dims + 1} x {dims + 1}, not {affine.shape}"
            )
        if not np.isfinite(affine).all() or not _spans(affine[:dims, :dims]):
            raise GeometryError(
                f"the affine {np.round(affine, 4).tolist()} cannot be inverted; correct the file's header"
            )
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)
        object.__setattr__(self, "shape", tuple(int(size) for size in self.shape))

    @classmethod
    def from_spacing(
        cls, shape: tuple[int, ...], spacing: tuple[float, ...], unit: Literal["mm", "px"] = "mm"
    ) -> Geometry:
        """A grid along the world's axes, its first voxel at the origin."""
        return cls(shape, np.diag([*spacing, 1.0]), unit)

    @property
    def dims(self) -> int:
        """2 or 3."""
        return len(self.shape)

    @property
    def directions(self) -> np.ndarray:
        """Unit vectors of the voxel axes, one a column."""
        return np.asarray(self.affine[: self.dims, : self.dims] / self.spacing)

    @property
    def spacing(self) -> np.ndarray:
        """Voxel size along each axis, in the grid's unit."""
        return np.linalg.norm(self.affine[: self.dims, : self.dims], axis=0)

    @property
    def voxel_volume(self) -> float:
        """mm3 (mm2 in 2D)."""
        return float(abs(np.linalg.det(self.affine[: self.dims, : self.dims])))

    @property
    def orientation(self) -> str:
        """The nearest anatomical axes, for instance 'RAS'; 'XY' for a 2D picture."""
        if self.dims == 2:
            return "XY"
        import nibabel

        return "".join(nibabel.orientations.aff2axcodes(self.affine))

    @property
    def is_sheared(self) -> bool:
        """Whether the axes are not at right angles (beyond 0.1 %, float noise of headers)."""
        products = self.directions.T @ self.directions
        return bool(np.abs(products - np.eye(self.dims)).max() > 1e-3)

    @property
    def affine_4x4(self) -> np.ndarray:
        """A new 4 x 4 affine, for formats that know no other: a 2D grid lies in the plane z = 0, its slice 1 thick."""
        affine = np.eye(4)
        kept = [*range(self.dims), 3]
        affine[np.ix_(kept, kept)] = self.affine
        return affine

    def corners(self, margin: float = 0.0) -> np.ndarray:
        """Indices `(2 ** dims, dims)` of the outermost voxels' centres; a margin of 0.5 gives the edges of the grid."""
        ends = [(-margin, size - 1 + margin) for size in self.shape]
        return np.array(list(itertools.product(*ends)), dtype=np.float64)

    def world(self, index: np.ndarray) -> np.ndarray:
        """Indices `(N, dims)` -> world coordinates `(N, dims)`."""
        return np.asarray(index @ self.affine[: self.dims, : self.dims].T + self.affine[: self.dims, self.dims])

    def index(self, world: np.ndarray) -> np.ndarray:
        """World coordinates `(N, dims)` -> fractional indices `(N, dims)`."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(world @ inverse[: self.dims, : self.dims].T + inverse[: self.dims, self.dims])

    def matches(self, other: Geometry, tolerance: float = 1e-2) -> bool:
        """Whether two grids are the same: equal shapes, and no corner further apart than `tolerance` voxels."""
        if self.shape != other.shape or self.unit != other.unit:
            return False
        corners = self.corners()
        return bool(np.abs(other.index(self.world(corners)) - corners).max() <= tolerance)

    def describe(self) -> str:
        """One line for messages: shape, spacing, orientation."""
        spacing = " x ".join(f"{size:.4g}" for size in self.spacing)
        return f"{' x '.join(map(str, self.shape))} voxels of {spacing} {self.unit}, {self.orientation}"


def _spans(axes: np.ndarray) -> bool:
    """Whether the voxel axes, one a column, enclose a volume, whatever their lengths: microscopes know 0.1 um."""
    spacing = np.linalg.norm(axes, axis=0)
    return bool((spacing > 0).all() and abs(np.linalg.det(axes / spacing)) > 1e-6)
