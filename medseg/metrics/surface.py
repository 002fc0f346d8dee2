"""Distances between two surfaces in mm, on any grid.

A surface is the set of the mask's voxels that have a face neighbour outside the mask; beyond the edge of the image is
outside. Its points are those voxels' centres in world coordinates, so that anisotropic, oblique and sheared grids are
all measured right. Each point has a distance to the nearest of the other surface, and every point weighs the same.

    HD95   the larger of the two directed 95th percentiles, linearly interpolated (as MONAI; Maier-Hein et al. 2024)
    ASSD   the mean over the points of both surfaces together (Heimann et al., IEEE TMI 2009)
    NSD    the share of the points of both surfaces within the tolerance (Nikolov et al. 2018, arXiv:1809.04430, with
           points counted, as MONAI does by default, where that paper weighs surface elements by their area)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import KDTree

from medseg import morphology
from medseg.geometry import Geometry

_ROUNDING_MM = 1e-4  # a distance that equals the tolerance is within it, whatever float noise the affine has


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """For each point of a surface the distance to the other surface, in the grid's unit; neither is empty."""

    from_prediction: np.ndarray
    from_truth: np.ndarray

    def hausdorff(self, percentile: float = 95.0) -> float:
        """The larger of the two directed percentiles; 100 gives the Hausdorff distance itself."""
        return float(max(np.percentile(self.from_prediction, percentile), np.percentile(self.from_truth, percentile)))

    def mean(self) -> float:
        """ASSD: the mean over the points of both surfaces."""
        points = self.from_prediction.size + self.from_truth.size
        return float((self.from_prediction.sum() + self.from_truth.sum()) / points)

    def share_within(self, tolerance: float) -> float:
        """NSD: the share of the points of both surfaces that lie no further than the tolerance."""
        both = np.concatenate([self.from_prediction, self.from_truth])
        return float(np.mean(both <= tolerance + _ROUNDING_MM))


def surface_distances(prediction: np.ndarray, truth: np.ndarray, geometry: Geometry) -> SurfaceDistances | None:
    """Distances between the surfaces of two bool masks on one grid; None where either is empty."""
    box = morphology.bounding_box(prediction | truth, margin=1)
    if box is None:
        return None
    first, second = _points(prediction[box], geometry), _points(truth[box], geometry)
    if not len(first) or not len(second):
        return None
    return SurfaceDistances(KDTree(second).query(first)[0], KDTree(first).query(second)[0])


def _points(mask: np.ndarray, geometry: Geometry) -> np.ndarray:
    """Surface voxels' centres `(N, dims)` in world coordinates, up to a shift that both surfaces share."""
    return np.argwhere(morphology.surface(mask)) @ geometry.affine[: geometry.dims, : geometry.dims].T
