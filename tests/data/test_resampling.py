"""Resampling between grids: exact where it can be, right in world coordinates where it cannot."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from medseg.data.resampling import resample
from medseg.geometry import Geometry

RNG = np.random.default_rng(0)


def oblique(shape: tuple[int, ...], degrees: float, spacing: tuple[float, ...], origin: tuple[float, ...]) -> Geometry:
    """A grid turned about the z axis."""
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) * spacing
    affine[:3, 3] = origin
    return Geometry(shape, affine)


def test_the_same_grid_gives_the_same_values() -> None:
    grid = Geometry.from_spacing((5, 6, 7), (0.7, 1.0, 3.0))
    array = RNG.normal(size=(2, 5, 6, 7)).astype(np.float32)
    assert np.array_equal(resample(array, grid, grid), array)


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2), (2, 1, 0)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1), (-1, -1, -1)])
def test_reorientation_is_an_exact_copy(axes: tuple[int, ...], signs: tuple[int, ...]) -> None:
    source = Geometry.from_spacing((4, 5, 6), (1.0, 2.0, 3.0))
    array = RNG.integers(0, 1000, size=(1, 4, 5, 6)).astype(np.int16)
    slices = tuple(slice(None, None, sign) for sign in signs)
    expected = array[0][slices].transpose(axes)[None]
    corner = [0 if sign > 0 else size - 1 for sign, size in zip(signs, source.shape, strict=True)]
    affine = np.eye(4)
    affine[:3, :3] = (source.affine[:3, :3] * signs)[:, axes]
    affine[:3, 3] = source.world(np.array([corner], dtype=float))[0]
    result = resample(array, source, Geometry(expected.shape[1:], affine), "nearest")
    assert result.dtype == np.int16
    assert np.array_equal(result, expected)


def test_a_small_difference_of_spacing_is_interpolated_and_does_not_add_up() -> None:
    source = Geometry.from_spacing((512, 2, 2), (1.0, 1.0, 1.0))
    target = Geometry.from_spacing((510, 2, 2), (1.0009, 1.0, 1.0))  # 0.46 mm apart at the far end
    ramp = np.broadcast_to(np.arange(512, dtype=np.float32)[None, :, None, None], (1, 512, 2, 2))
    expected = target.world(np.array([[509.0, 0, 0]]))[0, 0]
    assert resample(ramp, source, target)[0, 509, 0, 0] == pytest.approx(expected, abs=1e-3)


def test_voxels_outside_the_source_take_the_fill_value() -> None:
    source = Geometry.from_spacing((2, 2, 2), (1.0, 1.0, 1.0))
    affine = np.eye(4)
    affine[:3, 3] = (-1, 0, 0)
    target = Geometry((4, 2, 2), affine)
    array = np.arange(8, dtype=np.float32).reshape(1, 2, 2, 2)
    result = resample(array, source, target, fill=-5.0)
    assert np.array_equal(result[0, 1:3], array[0])
    assert (result[0, [0, 3]] == -5).all()


def test_a_linear_ramp_is_resampled_without_error_inside_the_grid() -> None:
    source = oblique((20, 20, 12), 20.0, (1.0, 1.5, 2.0), (-5.0, 3.0, 1.0))
    world = source.world(np.argwhere(np.ones(source.shape)).astype(float))
    weights = np.array([0.3, -0.2, 0.7])
    ramp = (world @ weights).reshape(1, *source.shape)
    inner = oblique((6, 6, 6), -10.0, (1.2, 0.9, 1.1), tuple(source.world(np.array([[7.0, 7.0, 3.0]]))[0]))
    expected = (inner.world(np.argwhere(np.ones(inner.shape)).astype(float)) @ weights).reshape(1, *inner.shape)
    assert np.abs(resample(ramp, source, inner) - expected).max() < 1e-4


def test_linear_agrees_with_scipy_on_oblique_anisotropic_grids() -> None:
    source = oblique((16, 14, 12), 33.0, (0.8, 1.1, 2.5), (4.0, -7.0, 2.0))
    target = oblique((15, 17, 20), -12.0, (1.0, 0.7, 1.3), (3.0, -4.0, 0.0))
    array = RNG.normal(size=(1, *source.shape)).astype(np.float32)
    places = source.index(target.world(np.argwhere(np.ones(target.shape)).astype(float))).T
    expected = map_coordinates(array[0].astype(np.float64), places, order=1, mode="nearest").reshape(target.shape)
    outside = ((places < -0.5) | (places > np.array(source.shape)[:, None] - 0.5)).any(axis=0).reshape(target.shape)
    expected[outside] = 0.0
    result = resample(array, source, target)[0]
    near_border = (np.abs(places + 0.5) < 1e-3) | (np.abs(places - np.array(source.shape)[:, None] + 0.5) < 1e-3)
    clear = ~near_border.any(axis=0).reshape(target.shape)
    assert np.abs(result - expected)[clear].max() < 1e-3


def test_downsampling_and_back_keeps_a_label_in_place() -> None:
    fine = Geometry.from_spacing((24, 24, 24), (1.0, 1.0, 1.0))
    coarse = Geometry.from_spacing((12, 12, 12), (2.0, 2.0, 2.0))
    cube = np.zeros((1, 24, 24, 24), dtype=np.uint8)
    cube[0, 8:16, 8:16, 8:16] = 1
    back = resample(resample(cube, fine, coarse, "nearest"), coarse, fine, "nearest")
    centre = np.argwhere(back[0]).mean(axis=0)
    assert np.abs(centre - 11.5).max() <= 1.0


def test_pictures_are_resampled_in_two_dimensions() -> None:
    source = Geometry((8, 6), np.diag([1.0, 1.0, 1.0]), "px")
    target = Geometry((4, 3), np.array([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]]), "px")
    array = np.add.outer(np.arange(8.0), 10 * np.arange(6.0))[None]
    expected = np.add.outer(np.arange(4) * 2 + 0.5, 10 * (np.arange(3) * 2 + 0.5))
    assert np.allclose(resample(array, source, target)[0], expected, atol=1e-4)


def test_a_single_slice_survives() -> None:
    source = Geometry.from_spacing((6, 6, 1), (1.0, 1.0, 5.0))
    target = Geometry.from_spacing((12, 12, 1), (0.5, 0.5, 5.0))
    assert np.allclose(resample(np.full((1, 6, 6, 1), 3.0), source, target), 3.0)
