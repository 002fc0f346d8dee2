"""Shapes with answers known by counting, and SciPy and SimpleITK as independent references."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from medseg import morphology


def random_mask(shape: tuple[int, ...], seed: int, share: float = 0.3) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < share


def test_voxels_that_touch_at_a_corner_are_one_component_or_two() -> None:
    mask = np.zeros((4, 4, 4), dtype=bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert morphology.components(mask, "corners")[1] == 1
    assert morphology.components(mask, "faces")[1] == 2


@pytest.mark.parametrize("shape", [(17, 12), (11, 9, 7)])
@pytest.mark.parametrize("connectivity", ["faces", "corners"])
def test_components_agree_with_simpleitk(shape: tuple[int, ...], connectivity: morphology.Connectivity) -> None:
    mask = random_mask(shape, seed=1)
    found, count = morphology.components(mask, connectivity)
    reference = sitk.GetArrayFromImage(
        sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), connectivity == "corners")
    )
    assert count == reference.max()
    pairs = set(zip(found.ravel().tolist(), reference.ravel().tolist(), strict=True))
    assert len(pairs) == count + 1  # one to one, background included


def test_the_largest_component_is_kept_whole_and_the_first_wins_a_tie() -> None:
    mask = np.zeros((9, 3), dtype=bool)
    mask[0], mask[3:5], mask[7:9] = True, True, True
    kept = morphology.largest_component(mask)
    assert kept[3:5].all()
    assert kept.sum() == 6
    assert not morphology.largest_component(np.zeros((3, 3), dtype=bool)).any()


def test_component_sizes_count_voxels() -> None:
    mask = np.zeros((10, 10), dtype=bool)
    mask[0, :3], mask[5:7, 5:7] = True, True
    assert morphology.component_sizes(mask)[1].tolist() == [3, 4]
    assert morphology.component_sizes(np.zeros((2, 2), dtype=bool))[1].size == 0


def test_the_surface_of_a_cube_is_all_but_its_inside() -> None:
    cube = np.zeros((9, 9, 9), dtype=bool)
    cube[2:7, 2:7, 2:7] = True
    assert morphology.surface(cube).sum() == 5**3 - 3**3


def test_beyond_the_edge_of_the_array_is_outside() -> None:
    full = np.ones((5, 5), dtype=np.uint8)
    assert morphology.surface(full).sum() == 25 - 9


def test_distances_are_in_mm_along_each_axis() -> None:
    mask = np.zeros((5, 5, 5), dtype=bool)
    mask[0, 0, 0] = True
    distance = morphology.distance_to(mask, (1.0, 2.0, 3.0))
    assert distance[2, 0, 0] == 2
    assert distance[0, 2, 0] == 4
    assert distance[1, 2, 2] == pytest.approx(np.sqrt(1 + 16 + 36))


def test_distance_to_nothing_is_infinite() -> None:
    assert np.isinf(morphology.distance_to(np.zeros((3, 3), dtype=bool), (1, 1))).all()


def test_distance_agrees_with_simpleitk() -> None:
    mask = ndimage.binary_opening(random_mask((20, 18, 16), seed=2, share=0.7))
    image = sitk.GetImageFromArray(mask.transpose(2, 1, 0).astype(np.uint8))
    image.SetSpacing((1.0, 1.5, 2.5))
    outside = sitk.SignedMaurerDistanceMap(image, squaredDistance=False, useImageSpacing=True)
    reference = sitk.GetArrayFromImage(outside).transpose(2, 1, 0)  # to the nearest border voxel of the mask
    ours = morphology.distance_to(mask, (1.0, 1.5, 2.5))
    assert ours[~mask] == pytest.approx(reference[~mask], rel=1e-5)


def test_a_ball_holds_the_centres_within_its_radius() -> None:
    assert morphology.ball(1.0, (1, 1, 1)).sum() == 7
    assert morphology.ball(2.0, (1.0, 1.0, 3.0)).shape == (5, 5, 1)
    assert morphology.ball(0.0, (1, 1)).tolist() == [[True]]
    assert morphology.ball(0.3, (0.1, 0.1)).shape == (7, 7)  # 0.3 / 0.1 is a little less than 3


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (0.8, 1.2, 2.5)])
def test_dilation_is_that_by_a_ball(spacing: tuple[float, ...]) -> None:
    mask = random_mask((16, 15, 14), seed=3, share=0.02)
    element = morphology.ball(3.0, spacing)
    np.testing.assert_array_equal(morphology.dilate(mask, 3.0, spacing), ndimage.binary_dilation(mask, element))


def test_only_enclosed_background_is_filled() -> None:
    ring = np.zeros((7, 7), dtype=bool)
    ring[1:6, 1:6] = True
    ring[3, 3] = False
    assert morphology.fill_holes(ring).sum() == 25
    ring[1:3, 3] = False  # a way out
    assert morphology.fill_holes(ring).sum() == 22


def test_a_bounding_box_has_its_margin_and_stays_in_the_array() -> None:
    mask = np.zeros((10, 10), dtype=bool)
    mask[4:6, 9] = True
    assert morphology.bounding_box(mask) == (slice(4, 6), slice(9, 10))
    assert morphology.bounding_box(mask, margin=2) == (slice(2, 8), slice(7, 10))
    assert morphology.bounding_box(np.zeros((3, 3), dtype=bool)) is None
