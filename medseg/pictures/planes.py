"""The one slice of a volume that a picture shows, turned the way a reader of medical images expects it.

Radiological convention: the patient's right is on the left of the picture, anterior or superior is on top, and in a
sagittal plane anterior is on the left. Oblique grids are shown along their own axes, named after the nearest anatomical
ones. A 2D picture is shown as stored: array axis 0 runs to the right, axis 1 downwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from medseg.geometry import Geometry

_PLANES = ("sagittal", "coronal", "axial")  # by the world axis that the slices are stacked along
_LETTERS = ("RL", "AP", "SI")  # high end of a world axis, low end
_CLEARLY = 1.2  # spacing along the acquisition axis over the smallest one


@dataclass(frozen=True)
class Plane:
    """How to cut arrays on one grid to the picture `(rows, columns)` of one slice."""

    order: tuple[int, ...]  # the voxel axes that give columns, rows and, in 3D, the stack
    flips: tuple[bool, ...]  # whether columns and rows run against their voxel axis
    index: int | None  # of the slice, along the stack's voxel axis; None in 2D
    spacing: tuple[float, float]  # of columns and rows, in the grid's unit
    letters: tuple[str, str, str, str] | None  # left, right, top, bottom; None in 2D
    name: str  # "axial slice 12 of 36", "" in 2D

    def cut(self, array: np.ndarray) -> np.ndarray:
        """`(X, Y, Z)` or `(X, Y)` -> `(rows, columns)` of the slice."""
        turned = array.transpose(self.order)
        flat = turned if self.index is None else turned[..., self.index]
        return np.asarray(flat[:: -1 if self.flips[0] else 1, :: -1 if self.flips[1] else 1].T)


def choose_plane(geometry: Geometry, labelled: np.ndarray) -> Plane:
    """The slice with the most labelled voxels, or the middle one where there are none.

    Slices are those of the acquisition, along the axis of the clearly largest spacing; axial where no axis stands out.
    """
    if geometry.dims == 2:
        return Plane((0, 1), (False, False), None, _pair(geometry, 0, 1), None, "")
    world, rising = _nearest_world_axes(geometry)
    spacing = geometry.spacing
    stands_out = spacing.max() > _CLEARLY * np.median(spacing)
    stack = int(spacing.argmax()) if stands_out else world.index(2)
    per_slice = np.count_nonzero(labelled, axis=tuple(axis for axis in range(3) if axis != stack))
    index = int(per_slice.argmax()) if per_slice.any() else geometry.shape[stack] // 2
    columns, rows = sorted((axis for axis in range(3) if axis != stack), key=lambda axis: world[axis])
    left_right, top_bottom = _LETTERS[world[columns]], _LETTERS[world[rows]]
    return Plane(
        order=(columns, rows, stack),
        flips=(rising[columns], rising[rows]),
        index=index,
        spacing=_pair(geometry, columns, rows),
        letters=(left_right[0], left_right[1], top_bottom[0], top_bottom[1]),
        name=f"{_PLANES[world[stack]]} slice {index + 1} of {geometry.shape[stack]}",
    )


def _nearest_world_axes(geometry: Geometry) -> tuple[list[int], list[bool]]:
    """For each voxel axis the nearest world axis, each taken once, and whether it runs to its high end."""
    import nibabel

    found = nibabel.orientations.io_orientation(geometry.affine)
    return [int(axis) for axis in found[:, 0]], [bool(sign > 0) for sign in found[:, 1]]


def _pair(geometry: Geometry, columns: int, rows: int) -> tuple[float, float]:
    return float(geometry.spacing[columns]), float(geometry.spacing[rows])
