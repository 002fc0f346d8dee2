"""The predictor on networks whose answer is known: every voxel must come back to its place on the source grid."""

import itertools

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from medseg.data.intensity import Window
from medseg.data.patches import PatchSettings
from medseg.data.preprocessing import CropForeground, Preprocessing
from medseg.errors import ModelError
from medseg.geometry import Geometry
from medseg.inference.predictor import Predictor
from medseg.inference.settings import InferenceSettings
from medseg.labels import Label, LabelSet
from medseg.volume import Volume

LABELS = LabelSet(labels=(Label(name="low", value=1), Label(name="high", value=7)))
OVERLAPPING = LabelSet(kind="overlapping", labels=(Label(name="any", value=1), Label(name="bright", value=2)))
PLAIN = Preprocessing(intensity=())


class Threshold(nn.Module):
    """Voxel-wise logits from the grey value: background near 0, `low` near 1, `high` near 2."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([-((image - level) ** 2) for level in (0.0, 1.0, 2.0)], dim=1)


class LeftHalf(nn.Module):
    """Says `low` in the first half of each window along axis 0, whatever it sees: not symmetric under flips."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits = torch.zeros(image.shape[0], 3, *image.shape[2:])
        logits[:, 1, : image.shape[2] // 2] = 1.0
        return logits


def volume(shape: tuple[int, ...], affine: np.ndarray | None = None) -> Volume:
    array = np.random.default_rng(0).integers(0, 3, size=(1, *shape)).astype(np.float32)
    dims = len(shape)
    geometry = Geometry(shape, np.eye(dims + 1) if affine is None else affine, "mm" if dims == 3 else "px")
    return Volume(array, geometry)


def expected(image: Volume) -> np.ndarray:
    return np.array([0, 1, 7])[image.array[0].astype(int)]


def predictor(patch: PatchSettings, preprocessing: Preprocessing = PLAIN, **settings: object) -> Predictor:
    chosen = InferenceSettings.model_validate({"precision": "fp32", **settings})
    return Predictor(Threshold(), LABELS, preprocessing, patch, chosen)


@pytest.mark.parametrize("shape", [(20, 18, 16), (8, 8, 8), (5, 4, 3), (9, 30, 1)])
def test_any_size_comes_back_whole(shape: tuple[int, ...]) -> None:
    image = volume(shape)
    assert np.array_equal(predictor(PatchSettings(size=(8, 8, 8))).predict(image).array, expected(image))


@pytest.mark.parametrize(
    "directions",
    [np.diag([1, 1, 1]), np.diag([-1, -1, 1]), np.eye(3)[[2, 0, 1]], -np.eye(3)[[1, 2, 0]] * [2.0, 1.0, 3.0]],
)
def test_any_orientation_comes_back_in_place(directions: np.ndarray) -> None:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = directions, (-20, 7, 3)
    image = volume((9, 12, 7), affine)
    found = predictor(PatchSettings(size=(8, 8, 8))).predict(image)
    assert np.array_equal(found.array, expected(image))
    assert found.geometry is image.geometry


def test_windows_flips_and_batches_change_nothing_for_a_voxelwise_network() -> None:
    image = volume((20, 18, 16))
    found = predictor(PatchSettings(size=(8, 8, 8)), flips=(0, 1, 2), overlap=0.25, window_batch=3).predict(image)
    assert np.array_equal(found.array, expected(image))


def test_flips_are_undone_and_averaged() -> None:
    """One window with a network that always says 'left': flipped back, the other half gets the same vote."""
    settings = InferenceSettings(flips=(0,), precision="fp32", blending="constant")
    both = Predictor(LeftHalf(), LABELS, PLAIN, PatchSettings(size=(8, 8, 8)), settings)
    assert np.allclose(both.logits(np.zeros((1, 8, 8, 8), np.float32))[1], 0.5)


def test_slices_feed_a_2d_network() -> None:
    image = volume((12, 10, 5))
    for axis in range(3):
        found = predictor(PatchSettings(size=(8, 4), slice_axis=axis)).predict(image)
        assert np.array_equal(found.array, expected(image))


def test_pictures_are_predicted_in_two_dimensions() -> None:
    image = volume((13, 9))
    found = predictor(PatchSettings(size=(8, 8)), Preprocessing(orientation=None, intensity=())).predict(image)
    assert np.array_equal(found.array, expected(image))


def test_what_the_crop_left_out_is_background() -> None:
    array = np.zeros((1, 16, 16, 16), np.float32)
    array[0, 4:9, 5:9, 6:9] = 2
    image = Volume(array, Geometry.from_spacing((16, 16, 16), (1.0, 1.0, 1.0)))
    cropped = Preprocessing(crop_foreground=CropForeground(), intensity=())
    found = predictor(PatchSettings(size=(8, 8, 8)), cropped).predict(image)
    assert np.array_equal(found.array, np.where(array[0] > 0, 7, 0))


def test_resampling_returns_to_the_source_grid_in_place() -> None:
    axes = np.meshgrid(*[np.arange(24.0)] * 3, indexing="ij")
    ball = ((axes[0] - 11) ** 2 + (axes[1] - 12) ** 2 + (axes[2] - 10) ** 2 < 49).astype(np.float32)
    image = Volume(ball[None] * 2, Geometry.from_spacing((24, 24, 24), (1.0, 1.0, 1.0)))
    coarse = Preprocessing(spacing_mm=(1.5, 1.5, 1.5), intensity=(Window(low=0, high=2),))

    class Bright(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.cat([0.5 - image, torch.full_like(image, -1e3), image - 0.5], dim=1)

    found = Predictor(Bright(), LABELS, coarse, PatchSettings(size=(16, 16, 16))).predict(image).array == 7
    truth = ball > 0
    assert found.shape == truth.shape
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.93
    assert np.abs(np.argwhere(found).mean(axis=0) - np.argwhere(truth).mean(axis=0)).max() < 0.1


def test_overlapping_labels_come_back_as_booleans() -> None:
    class Both(nn.Module):
        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return torch.cat([image - 0.5, image - 1.5], dim=1)

    image = volume((9, 8, 7))
    found = Predictor(Both(), OVERLAPPING, PLAIN, PatchSettings(size=(8, 8, 8))).predict(image)
    assert found.array.dtype == bool
    assert np.array_equal(found.array, np.stack([image.array[0] >= 1, image.array[0] >= 2]))


def test_bf16_agrees_with_fp32() -> None:
    """Convolutions are what autocast does in bf16; only voxels between two labels may tip."""
    torch.manual_seed(0)
    widths = (1, 8, 8)
    hidden = [
        part
        for inside, outside in itertools.pairwise(widths)
        for part in (nn.Conv3d(inside, outside, 3, padding=1), nn.InstanceNorm3d(outside), nn.ReLU())
    ]
    network = nn.Sequential(*hidden, nn.Conv3d(widths[-1], 3, 1))
    smooth = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(24, 24, 24)), 2.0).astype(np.float32)
    image = Volume(smooth[None] / smooth.std(), Geometry.from_spacing((24, 24, 24), (1.0, 1.0, 1.0)))
    found = {}
    for precision in ("fp32", "bf16"):
        settings = InferenceSettings.model_validate({"precision": precision})
        one = Predictor(network, LABELS, PLAIN, PatchSettings(size=(16, 16, 16)), settings)
        found[precision] = one.predict(image).array, one.logits(image.array)
    assert set(np.unique(found["fp32"][0])) == {0, 1, 7}
    assert not np.array_equal(found["fp32"][1], found["bf16"][1])  # bf16 was at work
    assert (found["fp32"][0] == found["bf16"][0]).mean() >= 0.99


def test_a_volume_of_the_wrong_dimensions_is_refused() -> None:
    with pytest.raises(ModelError, match="2 dimensions"):
        predictor(PatchSettings(size=(8, 8, 8))).predict(volume((9, 9)))


def test_flips_along_an_axis_that_is_not_there_are_refused() -> None:
    with pytest.raises(ModelError, match="axis 3"):
        predictor(PatchSettings(size=(8, 8, 8)), flips=(3,))
