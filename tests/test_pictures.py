"""Pictures by their pixels: the right slice, the right way round, the right colours."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from medseg.errors import GeometryError
from medseg.geometry import Geometry
from medseg.labels import Label, LabelSet
from medseg.pictures import curves, heat, overlay
from medseg.pictures.planes import choose_plane
from medseg.volume import Segmentation, Volume

LABELS = LabelSet(labels=(Label(name="core", value=1, colour=(255, 0, 0)), Label(name="rim", value=2)))
RAS, LPS = np.diag([1.0, 1.0, 1.0, 1.0]), np.diag([-1.0, -1.0, 1.0, 1.0])


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=int)


def corner_case(affine: np.ndarray) -> tuple[Geometry, np.ndarray]:
    """A bright blob that is right, anterior and superior of the middle, whatever the affine."""
    geometry = Geometry((20, 30, 16), affine)
    centre = geometry.world((np.array([geometry.shape]) - 1) / 2)[0]
    grid = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1).reshape(-1, 3)
    right, front, up = (geometry.world(grid) - centre).T
    inside = (right > 3) & (front > 5) & (np.abs(up - 2) < 2)
    return geometry, inside.reshape(geometry.shape)


@pytest.mark.parametrize("affine", [RAS, LPS, np.array([[0, 0, 1.0, 0], [-1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])])
def test_right_is_shown_left_and_anterior_on_top(affine: np.ndarray) -> None:
    geometry, inside = corner_case(affine)
    plane = choose_plane(geometry, inside)
    shown = plane.cut(inside)
    rows, columns = np.argwhere(shown).mean(axis=0) / shown.shape
    assert plane.name.startswith("axial")
    assert plane.letters == ("R", "L", "A", "P")
    assert rows < 0.4
    assert columns < 0.4


@pytest.mark.parametrize(
    ("spacing", "name", "letters"),
    [
        ((1.0, 1.0, 5.0), "axial", ("R", "L", "A", "P")),
        ((1.0, 5.0, 1.0), "coronal", ("R", "L", "S", "I")),
        ((5.0, 1.0, 1.0), "sagittal", ("A", "P", "S", "I")),
    ],
)
def test_slices_are_those_of_the_acquisition(spacing: tuple[float, ...], name: str, letters: tuple[str, ...]) -> None:
    plane = choose_plane(Geometry.from_spacing((10, 10, 10), spacing), np.zeros((10, 10, 10), dtype=bool))
    assert plane.name == f"{name} slice 6 of 10"  # the middle one, where nothing is labelled
    assert plane.letters == letters


def test_the_slice_with_the_most_label_is_shown() -> None:
    labelled = np.zeros((10, 10, 10), dtype=bool)
    labelled[:2, :2, 1] = labelled[:5, :5, 7] = True
    plane = choose_plane(Geometry.from_spacing((10, 10, 10), (1, 1, 1)), labelled)
    assert plane.index == 7
    assert plane.cut(labelled).sum() == 25


def test_a_picture_is_shown_as_stored() -> None:
    """Axis 0 is the column, axis 1 the row."""
    labelled = np.zeros((30, 20), dtype=bool)
    labelled[25, 2] = True
    plane = choose_plane(Geometry.from_spacing((30, 20), (1, 1), "px"), labelled)
    assert np.argwhere(plane.cut(labelled)).tolist() == [[2, 25]]
    assert (plane.letters, plane.name) == (None, "")


def test_small_volumes_are_enlarged_with_square_millimetres() -> None:
    geometry = Geometry.from_spacing((10, 10, 10), (1.0, 2.0, 5.0))
    page = Image.open(io.BytesIO(overlay(Volume(np.zeros((1, 10, 10, 10)), geometry), None, None)))
    assert page.height >= 384  # 20 mm; the 10 mm of the columns are half of that
    assert page.width == 320 + 2 * 16  # no narrower than its text needs


def test_truth_and_prediction_have_the_labels_colours() -> None:
    geometry, inside = corner_case(RAS)
    volume = Volume(np.zeros((1, *geometry.shape)), geometry)
    truth = Segmentation(inside.astype(int), geometry, LABELS)
    nothing = Segmentation(np.zeros(geometry.shape, dtype=int), geometry, LABELS)
    alone, both = pixels(overlay(volume, None, None)), pixels(overlay(volume, truth, nothing))
    red = (both[..., 0] > 80) & (both[..., 1] < 20) & (both[..., 2] < 20)
    columns = np.argwhere(red)[:, 1]
    assert red.sum() > 1000
    assert not ((alone[..., 0] > 80) & (alone[..., 1] < 20)).any()
    assert columns.max() < both.shape[1] * 2 / 3  # in the truth's panel and the legend, not in the prediction's


def test_a_grey_window_runs_from_black_to_white() -> None:
    geometry = Geometry.from_spacing((8, 8), (1, 1), "px")
    ramp = np.repeat(np.arange(8.0)[:, None], 8, axis=1)[None]
    shown = pixels(overlay(Volume(ramp, geometry), None, None, window=(2.0, 5.0)))
    middle = shown[shown.shape[0] // 2, 16 : 16 + 384, 0]
    assert (middle[:80] <= 20).all()
    assert (middle[320:] >= 235).all()
    assert (np.diff(middle[100:280]) >= 0).all()


def test_voxels_that_are_not_finite_or_all_equal_are_shown_all_the_same() -> None:
    geometry = Geometry.from_spacing((8, 8, 8), (1, 1, 1))
    broken = np.full((1, 8, 8, 8), np.nan, dtype=np.float32)
    assert overlay(Volume(broken, geometry), None, None).startswith(b"\x89PNG")
    assert overlay(Volume(np.ones((1, 8, 8, 8)), geometry), None, None).startswith(b"\x89PNG")


def test_colour_pictures_keep_their_colours() -> None:
    geometry = Geometry.from_spacing((16, 16), (1, 1), "px")
    rgb = np.zeros((3, 16, 16), dtype=np.uint8)
    rgb[0], rgb[2] = 200, 100
    shown = pixels(overlay(Volume(rgb, geometry), None, None))
    assert shown[shown.shape[0] // 2, 100].tolist() == [200, 0, 100]


def test_overlapping_labels_are_drawn() -> None:
    labels = LABELS.model_copy(update={"kind": "overlapping"})
    geometry, inside = corner_case(RAS)
    both = Segmentation(np.stack([inside, inside]), geometry, labels)
    assert overlay(Volume(np.zeros((1, *geometry.shape)), geometry), both, both, "case").startswith(b"\x89PNG")


def test_a_label_on_another_grid_is_refused() -> None:
    geometry, inside = corner_case(RAS)
    other = Geometry(geometry.shape, LPS)
    with pytest.raises(GeometryError, match="bring it onto the image's grid"):
        overlay(Volume(np.zeros((1, *geometry.shape)), geometry), Segmentation(inside.astype(int), other, LABELS), None)


def thirds(png: bytes) -> list[np.ndarray]:
    """The panels of a page of three squares: image, both, weights."""
    page = pixels(png)
    panels = [page[:, 16 + number * 400 :][:, :384] for number in range(3)]
    bottom = int(np.flatnonzero(panels[2].max(axis=2).min(axis=1) > 60)[-1])
    return [panel[bottom - 383 : bottom + 1] for panel in panels]


def test_heat_lies_where_the_weights_are_and_leaves_the_rest_as_it_is() -> None:
    """A grey image under weights of 1 in its left half: 0.3 of the grey and 0.7 of the hottest colour."""
    geometry = Geometry.from_spacing((16, 16), (1, 1), "px")
    ramp = np.repeat(np.arange(16.0)[:, None], 16, axis=1)[None]
    weights = np.zeros((1, 16, 16), np.float32)
    weights[:, :8] = 0.25
    image, both, alone = (panel[192] for panel in thirds(heat(Volume(ramp, geometry), Volume(weights, geometry))))
    assert np.array_equal(both[210:], image[210:])
    expected = 0.3 * image[:180] + 0.7 * np.array([255, 225, 90])
    assert np.abs(both[:180] - expected).max() <= 1
    assert (alone[:180] == [255, 225, 90]).all()
    assert (alone[210:] == [70, 40, 160]).all()


def test_one_voxel_far_above_the_others_does_not_hide_them() -> None:
    """Columns of 0, 1 and 2 and one voxel of 1000: the 99th percentile is 2, and all three colours are shown."""
    geometry = Geometry.from_spacing((24, 24), (1, 1), "px")
    weights = np.repeat(np.arange(24)[:, None] // 8, 24, axis=1)[None].astype(np.float32)
    weights[0, 4, 2] = 1000
    alone = thirds(heat(Volume(np.zeros((1, 24, 24)), geometry), Volume(weights, geometry)))[2]
    assert alone[300, [64, 192, 320]].tolist() == [[70, 40, 160], [220, 60, 50], [255, 225, 90]]
    assert np.abs(alone[40, 72] - [255, 225, 90]).max() < 30  # the voxel itself
    assert np.abs(alone[40, 86] - [70, 40, 160]).max() < 60  # the middle of the next one


def test_the_prediction_is_outlined_on_the_image_and_not_on_the_plain_weights() -> None:
    geometry = Geometry.from_spacing((16, 16), (1, 1), "px")
    label = np.zeros((16, 16), int)
    label[4:12, 4:12] = 1
    ramp = np.repeat(np.arange(16.0)[:, None], 16, axis=1)[None]
    page = heat(Volume(ramp, geometry), Volume(ramp, geometry), Segmentation(label, geometry, LABELS))
    red = [(panel == [255, 0, 0]).all(axis=2) for panel in thirds(page)]
    ring = 192 * 192 - 188 * 188  # px: 8 voxels of 24 px, 2 px deep
    assert [int(found.sum()) for found in red] == [ring, ring, 0]
    assert np.argwhere(red[0]).min(axis=0).tolist() == [96, 96]


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_weights_that_are_all_equal_leave_the_image_as_it_is(value: float) -> None:
    geometry = Geometry.from_spacing((16, 16), (1, 1), "px")
    ramp = np.repeat(np.arange(16.0)[:, None], 16, axis=1)[None]
    page = heat(Volume(ramp, geometry), Volume(np.full((1, 16, 16), value), geometry), None, "case")
    image, both, alone = thirds(page)
    assert np.array_equal(image, both)
    assert (alone == [70, 40, 160]).all()


def test_heat_shows_the_slice_that_the_overlay_shows() -> None:
    geometry = Geometry.from_spacing((10, 10, 10), (1, 1, 1))
    label = np.zeros(geometry.shape, int)
    label[2:5, 2:5, 7] = 1
    weights = np.zeros((1, 10, 10, 10))
    weights[..., 7] = 1.0
    image, prediction = Volume(np.zeros((1, 10, 10, 10)), geometry), Segmentation(label, geometry, LABELS)
    with_label = pixels(heat(image, Volume(weights, geometry), prediction))
    without = pixels(heat(image, Volume(weights, geometry)))
    hot = [(np.abs(one - 0.7 * np.array([255, 225, 90])).max(axis=-1) < 2).sum() for one in (with_label, without)]
    assert hot[0] > 100_000
    assert hot[1] == 0


def test_weights_on_another_grid_are_refused() -> None:
    geometry = Geometry.from_spacing((4, 4), (1, 1), "px")
    other = Volume(np.zeros((1, 4, 4)), Geometry.from_spacing((4, 4), (2, 1), "px"))
    with pytest.raises(GeometryError, match="bring it onto the image's grid"):
        heat(Volume(np.zeros((1, 4, 4)), geometry), other)


def test_a_long_caption_is_broken_into_lines() -> None:
    volume = Volume(np.zeros((1, 8, 8, 8)), Geometry.from_spacing((8, 8, 8), (1, 1, 1)))
    short, long = (Image.open(io.BytesIO(overlay(volume, None, None, text))) for text in ("a", "many words " * 20))
    assert long.width == short.width
    assert long.height > short.height


def test_curves_are_drawn_for_every_series() -> None:
    series = {"loss": [(0.0, 1.0), (1.0, 0.5)], "dice": [(1.0, 0.8)], "hole": [(0.0, float("nan"))], "none": []}
    shown = pixels(curves(series, "run"))
    assert shown.shape == (540, 960, 3)
    for colour in ((0, 114, 178), (213, 94, 0)):
        assert (np.abs(shown - colour).max(axis=2) < 3).any()


def test_pictures_are_imported_without_matplotlib_or_torch() -> None:
    code = "import sys, medseg.pictures; print([name for name in ('matplotlib', 'torch') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_settings_of_measurements_are_imported_without_scipy() -> None:
    code = (
        "import sys, medseg.metrics, medseg.postprocessing, medseg.evaluation\n"
        "print([name for name in ('scipy', 'torch', 'monai', 'matplotlib') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
