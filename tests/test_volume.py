"""Arrays fill their grids, and equal images have equal digests."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.errors import GeometryError
from medseg.geometry import Geometry
from medseg.labels import Label, LabelSet
from medseg.volume import Segmentation, Volume, digest

LABELS = LabelSet(
    labels=(Label(name="liver", value=1), Label(name="tumour", value=3)), regions={"all": ("liver", "tumour")}
)
BOTH = LabelSet(kind="overlapping", labels=LABELS.labels)
BINARY = [k / 2**n for n in range(1, 9) for k in (1, 3, 5, 7, 9, 15, 25, 45, 75, 125, 225) if 0.1 <= k / 2**n <= 8]
DECIMAL = [k / 10**n for n in range(1, 4) for k in (1, 5, 9, 12, 15, 33, 47, 55, 97, 125, 254, 977) if k / 10**n <= 8]
SPACINGS = sorted({size for size in (*BINARY, *DECIMAL) if size >= 0.1} | {1 / 3, 2 / 3, 4 / 3, 5 / 6, 240 / 176})


def _voxels() -> np.ndarray:
    return np.arange(2 * 3 * 4, dtype=np.int16).reshape(2, 3, 4)


def _grid(size: float, origin: float = 0.0) -> Geometry:
    affine = np.diag([-size, size, size, 1.0])
    affine[:3, 3] = origin
    return Geometry((2, 3, 4), affine)


def test_an_array_that_does_not_fill_its_grid_is_refused() -> None:
    grid = _grid(1.0)
    assert Volume(_voxels()[None], grid).channels == 1
    with pytest.raises(GeometryError, match="does not fill the grid"):
        Volume(_voxels(), grid)
    with pytest.raises(GeometryError, match=r"does not fill the grid \(2, 2, 3, 4\)"):
        Segmentation(_voxels(), grid, BOTH)


def test_volumes_are_in_millilitres() -> None:
    array = np.zeros((10, 10, 10), np.uint8)
    array[:5], array[5:6] = 1, 3
    found = Segmentation(array, Geometry.from_spacing((10, 10, 10), (1.0, 1.0, 2.0)), LABELS)
    assert found.volume_ml("liver") == pytest.approx(1.0)
    assert found.volume_ml("all") == pytest.approx(1.2)
    stacked = Segmentation(np.stack([array == 1, array > 0]), found.geometry, BOTH)
    assert stacked.volume_ml("tumour") == pytest.approx(1.2)


@pytest.mark.parametrize(
    "geometry",
    [Geometry.from_spacing((4, 4), (1.0, 1.0)), Geometry.from_spacing((4, 4, 4), (1.0, 1.0, 1.0), "px")],
)
def test_areas_and_pixels_are_no_millilitres(geometry: Geometry) -> None:
    found = Segmentation(np.ones(geometry.shape, np.uint8), geometry, LABELS)
    with pytest.raises(GeometryError, match="hold no millilitres"):
        found.volume_ml("liver")


class TestDigest:
    @pytest.mark.parametrize("size", SPACINGS)
    def test_header_noise_changes_nothing(self, size: float) -> None:
        array, rng = _voxels(), np.random.default_rng(int(size * 1e6))
        plain = _grid(size, -64 * size)
        expected = digest(array, plain)
        for noise in (*rng.uniform(-1e-6, 1e-6, (20, 4, 4)), np.full((4, 4), 1e-6), np.full((4, 4), -1e-6)):
            affine = plain.affine.copy()
            affine[:3, :3] *= 1 + noise[:3, :3]
            affine[:3, 3] *= 1 + noise[:3, 3] / 10  # float32 is exact to 6e-8
            affine[:3, :3] += noise[:3, :3] * 1e-3  # what a quaternion leaves where 0 should be
            assert digest(array, Geometry(plain.shape, affine)) == expected
        single = Geometry(plain.shape, plain.affine.astype(np.float32).astype(np.float64))
        assert digest(array, single) == expected

    @pytest.mark.parametrize("size", [1.0, 0.78125, 0.46875, 0.5000001, 3.3])
    @pytest.mark.parametrize("axis", [0, 1, 2])
    def test_a_move_by_a_hundredth_of_a_mm_is_seen(self, size: float, axis: int) -> None:
        for origin in (0.0, -83.25, 17.1234):
            moved = _grid(size, origin).affine.copy()
            moved[axis, 3] += 0.0100001
            assert digest(_voxels(), Geometry((2, 3, 4), moved)) != digest(_voxels(), _grid(size, origin))

    def test_a_spacing_a_thousandth_of_a_mm_larger_is_seen(self) -> None:
        assert digest(_voxels(), _grid(0.78125)) != digest(_voxels(), _grid(0.7822501))

    def test_a_flip_a_voxel_and_a_shape_are_seen(self) -> None:
        array, grid = _voxels(), _grid(1.0)
        changed = array.copy()
        changed[1, 2, 3] += 1
        flipped = Geometry(grid.shape, grid.affine @ np.diag([-1.0, 1.0, 1.0, 1.0]))
        reshaped = digest(array.reshape(4, 3, 2), Geometry((4, 3, 2), grid.affine))
        others = {digest(changed, grid), digest(array, flipped), reshaped}
        assert len(others | {digest(array, grid)}) == 4

    def test_type_layout_and_signed_zero_do_not_count(self) -> None:
        array, grid = _voxels(), _grid(1.0)
        expected = digest(array, grid)
        for same in (array.astype(np.float64), array.astype(">i4"), np.asfortranarray(array)):
            assert digest(same, grid) == expected
        assert digest(array, Geometry(grid.shape, np.where(grid.affine == 0, -0.0, grid.affine))) == expected
