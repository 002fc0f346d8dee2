"""A grid knows where it lies: answers from arithmetic, and from nibabel."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest

from medseg.errors import GeometryError
from medseg.geometry import Geometry

TURNED = np.array([[0.0, -2.0, 0.0, 10.0], [1.0, 0.0, 0.0, -5.0], [0.0, 0.0, 3.0, 7.0], [0.0, 0.0, 0.0, 1.0]])


def test_spacing_directions_and_volume_are_those_of_the_columns() -> None:
    grid = Geometry((4, 5, 6), TURNED)
    assert grid.spacing.tolist() == [1.0, 2.0, 3.0]
    assert grid.voxel_volume == pytest.approx(6.0)
    assert grid.directions[:, 1].tolist() == [-1.0, 0.0, 0.0]
    assert grid.dims == 3


@pytest.mark.parametrize("codes", ["RAS", "LPS", "ASL", "SRP", "PIR"])
def test_orientation_names_the_axes_as_nibabel_does(codes: str) -> None:
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt(codes), nibabel.orientations.axcodes2ornt("RAS")
    )
    affine = nibabel.orientations.inv_ornt_aff(turn, (4, 4, 4))
    assert Geometry((4, 4, 4), np.linalg.inv(affine)).orientation == codes


def test_a_picture_has_axes_x_and_y_in_pixels() -> None:
    picture = Geometry.from_spacing((7, 9), (1.0, 1.0), "px")
    assert picture.orientation == "XY"
    assert picture.describe() == "7 x 9 voxels of 1 x 1 px, XY"


def test_world_and_index_undo_each_other() -> None:
    grid = Geometry((4, 5, 6), TURNED)
    index = np.random.default_rng(0).uniform(-3, 9, (20, 3))
    np.testing.assert_allclose(grid.index(grid.world(index)), index, atol=1e-12)
    assert grid.world(np.array([[1.0, 2.0, 3.0]])).tolist() == [[6.0, -4.0, 16.0]]


def test_a_grid_matches_one_whose_corners_lie_within_the_tolerance() -> None:
    grid = Geometry.from_spacing((101, 11, 11), (2.0, 2.0, 2.0))
    near, far = np.diag([2.0, 2.0, 2.0, 1.0]), np.diag([2.0, 2.0, 2.0, 1.0])
    near[0, 3], far[0, 3] = 0.018, 0.022  # 0.009 and 0.011 voxels
    assert grid.matches(Geometry(grid.shape, near))
    assert not grid.matches(Geometry(grid.shape, far))
    assert grid.matches(Geometry(grid.shape, far), tolerance=0.02)
    stretched = Geometry.from_spacing(grid.shape, (2.0003, 2.0, 2.0))  # 0.03 mm after 100 voxels
    assert not grid.matches(stretched)


def test_other_shapes_and_units_never_match() -> None:
    grid = Geometry.from_spacing((4, 4), (1.0, 1.0))
    assert not grid.matches(Geometry.from_spacing((4, 5), (1.0, 1.0)))
    assert not grid.matches(Geometry.from_spacing((4, 4), (1.0, 1.0), "px"))


def test_a_flipped_grid_does_not_match() -> None:
    flipped = np.diag([-1.0, 1.0, 1.0, 1.0])
    flipped[0, 3] = 3.0
    assert not Geometry.from_spacing((4, 4, 4), (1.0, 1.0, 1.0)).matches(Geometry((4, 4, 4), flipped))


@pytest.mark.parametrize(("shear", "expected"), [(0.0, False), (5e-4, False), (5e-3, True), (0.5, True)])
def test_shear_beyond_rounding_is_seen(shear: float, expected: bool) -> None:
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    affine[0, 1] = shear
    assert Geometry((3, 3, 3), affine).is_sheared is expected


def test_corners_are_voxel_centres_or_the_grids_own() -> None:
    grid = Geometry.from_spacing((3, 5), (1.0, 1.0))
    assert sorted(map(tuple, grid.corners())) == [(0, 0), (0, 4), (2, 0), (2, 4)]
    assert sorted(map(tuple, grid.corners(0.5))) == [(-0.5, -0.5), (-0.5, 4.5), (2.5, -0.5), (2.5, 4.5)]
    assert Geometry((3, 5, 2), np.eye(4)).corners().shape == (8, 3)


def test_a_2d_grid_lies_in_the_plane_z_0() -> None:
    flat = Geometry((3, 5), np.array([[0.0, 2.0, 5.0], [3.0, 0.0, 6.0], [0.0, 0.0, 1.0]]))
    assert flat.affine_4x4.tolist() == [[0, 2, 0, 5], [3, 0, 0, 6], [0, 0, 1, 0], [0, 0, 0, 1]]
    whole = Geometry((4, 5, 6), TURNED)
    np.testing.assert_array_equal(whole.affine_4x4, TURNED)
    whole.affine_4x4[0, 0] = 99  # a copy each time
    assert whole.affine[0, 0] == 0


@pytest.mark.parametrize("size", [1e-4, 1e-6, 1.0, 1e3])
def test_voxels_of_any_size_are_taken(size: float) -> None:
    grid = Geometry.from_spacing((8, 8, 8), (size, size, size))
    assert grid.voxel_volume == pytest.approx(size**3)


@pytest.mark.parametrize(
    "affine",
    [
        np.diag([1.0, 0.0, 1.0, 1.0]),
        np.array([[1.0, 1.0, 0, 0], [1.0, 1.0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]),
        np.array([[1e4, 1e4, 0, 0], [1e4, 1e4 + 1e-4, 0, 0], [0, 0, 1e4, 0], [0, 0, 0, 1]]),
        np.diag([np.nan, 1.0, 1.0, 1.0]),
        np.diag([np.inf, 1.0, 1.0, 1.0]),
    ],
)
def test_an_affine_that_spans_nothing_is_refused(affine: np.ndarray) -> None:
    with pytest.raises(GeometryError, match="cannot be inverted; correct the file's header"):
        Geometry((2, 2, 2), affine)


def test_an_affine_of_another_size_is_refused() -> None:
    with pytest.raises(GeometryError, match=r"3 x 3, not \(4, 4\)"):
        Geometry((2, 2), np.eye(4))


def test_a_grid_cannot_be_changed() -> None:
    affine = np.eye(4)
    grid = Geometry((2, 2, 2), affine)
    affine[0, 0] = 5
    assert grid.affine[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        grid.affine[0, 0] = 5
