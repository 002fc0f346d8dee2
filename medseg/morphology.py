"""Shapes on a grid: components, distances and neighbourhoods in mm, the same for losses, metrics and clean-up.

Every function takes a mask `(X, Y, Z)` or `(X, Y)` of bool, or of numbers where not 0 is inside, and leaves it as it
is. Spacing is the voxel size along each axis, mm; distances run between voxel centres. What lies outside the array is
background. On a sheared grid, spacing says too little: take world coordinates, as `medseg.metrics.surface` does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy import ndimage

Connectivity = Literal["faces", "corners"]  # which voxels touch: 6 or 26 neighbours in 3D, 4 or 8 in 2D


def neighbourhood(dims: int, connectivity: Connectivity = "corners") -> np.ndarray:
    """The 3 x 3 (x 3) cube of bool that says which voxels touch the central one."""
    return np.asarray(ndimage.generate_binary_structure(dims, 1 if connectivity == "faces" else dims))


def components(mask: np.ndarray, connectivity: Connectivity = "corners") -> tuple[np.ndarray, int]:
    """Connected components as integers from 1, in array order of their first voxels, and how many there are."""
    found, count = ndimage.label(mask, structure=neighbourhood(mask.ndim, connectivity))
    return found, int(count)


def component_sizes(mask: np.ndarray, connectivity: Connectivity = "corners") -> tuple[np.ndarray, np.ndarray]:
    """Connected components as integers from 1, and the voxels of each: `sizes[0]` belongs to component 1."""
    found, count = components(mask, connectivity)
    return found, np.bincount(found.ravel(), minlength=count + 1)[1:]


def largest_component(mask: np.ndarray, connectivity: Connectivity = "corners") -> np.ndarray:
    """The component with the most voxels, the first in array order among equals; empty where the mask is."""
    found, sizes = component_sizes(mask, connectivity)
    return found == sizes.argmax() + 1 if sizes.size else np.zeros(mask.shape, dtype=bool)


def fill_holes(mask: np.ndarray) -> np.ndarray:
    """The mask with its holes: background that no path over voxel faces joins to the edge of the array."""
    return np.asarray(ndimage.binary_fill_holes(mask))


def surface(mask: np.ndarray) -> np.ndarray:
    """The mask's voxels with a face neighbour outside the mask, or on the edge of the array."""
    inside = mask.astype(bool, copy=False)
    return inside & ~ndimage.binary_erosion(inside, structure=neighbourhood(mask.ndim, "faces"))


def bounding_box(mask: np.ndarray, margin: int = 0) -> tuple[slice, ...] | None:
    """Slices around the mask with `margin` voxels more on each side, cut at the array; None for an empty mask."""
    box = []
    for axis, size in enumerate(mask.shape):
        hit = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        if hit.size == 0:
            return None
        box.append(slice(max(int(hit[0]) - margin, 0), min(int(hit[-1]) + 1 + margin, size)))
    return tuple(box)


def distance_to(mask: np.ndarray, spacing: Sequence[float] | np.ndarray) -> np.ndarray:
    """Distance in mm from each voxel to the nearest one of the mask, float64; 0 inside, infinite for an empty mask."""
    if not mask.any():
        return np.full(mask.shape, np.inf)
    return np.asarray(ndimage.distance_transform_edt(~mask.astype(bool, copy=False), sampling=_plain(spacing)))


def ball(radius_mm: float, spacing: Sequence[float] | np.ndarray) -> np.ndarray:
    """The structuring element of the voxels whose centres lie within the radius; odd sizes, at least one voxel."""
    reach = [int(np.floor(radius_mm / size + _ROUNDING)) for size in spacing]
    axes = np.ogrid[tuple(slice(-steps, steps + 1) for steps in reach)]
    squares = sum((axis * size) ** 2 for axis, size in zip(axes, spacing, strict=True))
    return np.asarray(squares <= radius_mm**2 * (1 + _ROUNDING))


def dilate(mask: np.ndarray, radius_mm: float, spacing: Sequence[float] | np.ndarray) -> np.ndarray:
    """The mask grown by a ball, at a cost that does not depend on the radius."""
    return distance_to(mask, spacing) <= radius_mm * (1 + _ROUNDING)


_ROUNDING = 1e-6  # relative: spacings come from headers in float32


def _plain(spacing: Sequence[float] | np.ndarray) -> list[float]:
    return [float(size) for size in spacing]
