"""Surface distances: cubes and planes by arithmetic; distance transforms and MONAI as independent references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage

from medseg.geometry import Geometry
from medseg.metrics.surface import SurfaceDistances, surface_distances

SPACINGS = [(1.0, 1.0, 1.0), (0.7, 1.3, 4.0), (2.5, 0.9, 0.9)]


def blobs(seed: int, shape: tuple[int, ...] = (26, 24, 20)) -> tuple[np.ndarray, np.ndarray]:
    """Two rough shapes that overlap, with islands, one of them at the edge of the array."""
    rng = np.random.default_rng(seed)
    noise = ndimage.gaussian_filter(rng.normal(size=shape), 2.0)
    truth = noise > np.quantile(noise, 0.8)
    return np.roll(noise + 0.02 * rng.normal(size=shape), 1, axis=0) > np.quantile(noise, 0.82), truth


def cube(start: tuple[int, int, int], side: int, size: int = 30) -> np.ndarray:
    mask = np.zeros((size, size, size), dtype=bool)
    mask[tuple(slice(first, first + side) for first in start)] = True
    return mask


def measured(prediction: np.ndarray, truth: np.ndarray, geometry: Geometry) -> SurfaceDistances:
    distances = surface_distances(prediction, truth, geometry)
    assert distances is not None
    return distances


def batched(mask: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(mask)[None, None]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("seed", range(3))
def test_all_three_distances_agree_with_monai(seed: int, spacing: tuple[float, ...]) -> None:
    prediction, truth = blobs(seed)
    found = measured(prediction, truth, Geometry.from_spacing(truth.shape, spacing))
    first, second = batched(prediction), batched(truth)
    hd95 = compute_hausdorff_distance(first, second, include_background=True, percentile=95, spacing=spacing).item()
    assd = compute_average_surface_distance(first, second, True, symmetric=True, spacing=spacing).item()
    nsd = compute_surface_dice(first, second, [1.05], include_background=True, spacing=spacing).item()
    assert found.hausdorff(95) == pytest.approx(hd95, rel=1e-5)
    assert found.mean() == pytest.approx(assd, rel=1e-5)
    assert found.share_within(1.05) == pytest.approx(nsd, rel=1e-6)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_distances_agree_with_a_distance_transform_of_the_whole_grid(spacing: tuple[float, ...]) -> None:
    prediction, truth = blobs(7)
    found = measured(prediction, truth, Geometry.from_spacing(truth.shape, spacing))
    borders = [mask & ~ndimage.binary_erosion(mask) for mask in (prediction, truth)]
    to_prediction, to_truth = (ndimage.distance_transform_edt(~border, sampling=spacing) for border in borders)
    assert np.sort(found.from_prediction) == pytest.approx(np.sort(to_truth[borders[0]]))
    assert np.sort(found.from_truth) == pytest.approx(np.sort(to_prediction[borders[1]]))


def test_flat_pictures_agree_with_monai() -> None:
    prediction, truth = blobs(5, (60, 50))
    found = measured(prediction, truth, Geometry.from_spacing(truth.shape, (0.5, 2.0), "px"))
    first, second = batched(prediction), batched(truth)
    hd95 = compute_hausdorff_distance(first, second, include_background=True, percentile=95, spacing=(0.5, 2.0)).item()
    assert found.hausdorff(95) == pytest.approx(hd95, rel=1e-5)


def test_a_perfect_prediction_has_no_distance() -> None:
    found = measured(cube((5, 5, 5), 8), cube((5, 5, 5), 8), Geometry.from_spacing((30,) * 3, (1, 1, 1)))
    assert (found.hausdorff(95), found.mean(), found.share_within(0.0)) == (0, 0, 1)


@pytest.mark.parametrize(("axis", "expected_mm"), [(0, 1.5), (1, 3.0), (2, 12.0)])
def test_cubes_shifted_by_three_voxels_are_three_spacings_apart(axis: int, expected_mm: float) -> None:
    start = [10, 10, 10]
    start[axis] += 3
    geometry = Geometry.from_spacing((30,) * 3, (0.5, 1.0, 4.0))
    found = measured(cube((start[0], start[1], start[2]), 8), cube((10, 10, 10), 8), geometry)
    assert found.hausdorff(100) == pytest.approx(expected_mm)


def test_plates_that_lie_two_voxels_apart() -> None:
    """Parallel plates, one voxel thick: each point is exactly 2 voxels from the other plate."""
    prediction, truth = np.zeros((9, 9, 9), dtype=bool), np.zeros((9, 9, 9), dtype=bool)
    prediction[:, :, 2] = truth[:, :, 4] = True
    found = measured(prediction, truth, Geometry.from_spacing((9, 9, 9), (1.0, 1.0, 1.5)))
    assert (found.hausdorff(95), found.mean()) == (3.0, 3.0)
    assert (found.share_within(2.9), found.share_within(3.0)) == (0.0, 1.0)


def test_concentric_balls_differ_by_their_radii() -> None:
    x, y, z = np.ogrid[-20:21, -20:21, -20:21]
    squares = x**2 + y**2 + z**2
    geometry = Geometry.from_spacing((41,) * 3, (0.5, 0.5, 0.5))
    found = measured(squares <= 18**2, squares <= 12**2, geometry)
    assert found.mean() == pytest.approx(3.0, abs=0.25)
    assert found.hausdorff(95) == pytest.approx(3.0, abs=0.5)


def test_hd95_is_the_larger_of_the_two_directions() -> None:
    """Of the prediction's 64 points 56 are right, 4 are 17 mm and 4 are 18 mm off: rank 0.95 x 63 = 59.85."""
    truth, island = cube((4, 4, 4), 4), cube((24, 4, 4), 2)
    found = measured(truth | island, truth, Geometry.from_spacing((30,) * 3, (1, 1, 1)))
    assert found.from_truth.max() == 0
    assert found.hausdorff(95) == pytest.approx(17.85)
    assert found.hausdorff(100) == 18
    assert found.hausdorff(50) == 0


def test_an_oblique_grid_gives_the_distances_of_a_straight_one() -> None:
    prediction, truth = blobs(4)
    spacing = np.array([1.0, 1.0, 2.0])
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(3, 3)))[0]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = rotation * spacing, (100, -50, 30)
    straight = measured(prediction, truth, Geometry.from_spacing(truth.shape, tuple(spacing)))
    oblique = measured(prediction, truth, Geometry(truth.shape, affine))
    assert oblique.hausdorff(95) == pytest.approx(straight.hausdorff(95))
    assert oblique.mean() == pytest.approx(straight.mean())
    assert oblique.share_within(1.0) == straight.share_within(1.0)  # many points are exactly 1 mm away


def test_a_sheared_grid_is_measured_in_world_coordinates() -> None:
    """Two points, one voxel apart along a straight axis and one along a slanted one of 1 mm, (0.6, 0, 0.8)."""
    affine = np.eye(4)
    affine[:3, 2] = (0.6, 0.0, 0.8)
    prediction, truth = np.zeros((4, 4, 4), dtype=bool), np.zeros((4, 4, 4), dtype=bool)
    prediction[1, 1, 1] = truth[2, 1, 2] = True
    found = measured(prediction, truth, Geometry((4, 4, 4), affine))
    assert found.hausdorff(100) == pytest.approx(np.hypot(1.6, 0.8))


def test_there_is_no_distance_to_nothing() -> None:
    geometry, empty = Geometry.from_spacing((30,) * 3, (1, 1, 1)), np.zeros((30,) * 3, dtype=bool)
    assert surface_distances(empty, cube((1, 1, 1), 3), geometry) is None
    assert surface_distances(cube((1, 1, 1), 3), empty, geometry) is None
    assert surface_distances(empty, empty, geometry) is None


def test_surfaces_at_the_edge_of_the_image_count() -> None:
    """A cube that fills the image has the image's outermost voxels as its surface."""
    full, inner = np.ones((6, 6, 6), dtype=bool), np.zeros((6, 6, 6), dtype=bool)
    inner[2:4, 2:4, 2:4] = True
    found = measured(full, inner, Geometry.from_spacing((6, 6, 6), (1, 1, 1)))
    assert found.from_prediction.size == 6**3 - 4**3
    assert found.from_truth.min() == 2
