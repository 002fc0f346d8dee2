"""Affine maps and noise: against SciPy, by arithmetic, and by their statistics."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from medseg.data.plain_transforms import AffineRanges, RandAffineMapd, RandNoised, rotation

BOTH = ["image", "label"]


class Recorded(RandAffineMapd):
    """Remembers the matrix and the shift that it drew."""

    def _matrix(self, dims: int) -> np.ndarray:
        self.matrix = super()._matrix(dims)
        return self.matrix

    def _drawn(self, width: float, count: int) -> np.ndarray:
        self.drawn = super()._drawn(width, count)  # the shift is the last one
        return self.drawn


def recorded(ranges: AffineRanges, seed: int) -> Recorded:
    step = Recorded(BOTH, 1.0, ranges)
    step.set_random_state(seed)
    return step


def blobs(shape: tuple[int, ...], seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A smooth image of two channels and a label of some values."""
    rng = np.random.default_rng(seed)
    image = np.stack([ndimage.gaussian_filter(rng.normal(size=shape), 1.5) for _ in range(2)])
    return image.astype(np.float32), np.digitize(image[:1], [-0.1, 0.1]).astype(np.float32)


@pytest.mark.parametrize("shape", [(14, 17), (12, 9, 11), (10, 1, 8)])
@pytest.mark.parametrize("seed", range(4))
def test_a_patch_is_mapped_as_scipy_maps_it(shape: tuple[int, ...], seed: int) -> None:
    image, label = blobs(shape, seed)
    step = recorded(AffineRanges(0.4, 0.2, 0.1, 1.5), seed)
    found = step({"image": torch.from_numpy(image), "label": torch.from_numpy(label)})
    centre = (np.array(shape) - 1) / 2
    offset = centre - step.matrix @ centre + step.drawn
    linear = [ndimage.affine_transform(one, step.matrix, offset, order=1, mode="nearest") for one in image]
    assert np.allclose(found["image"], np.stack(linear), atol=1e-4)
    nearest = ndimage.affine_transform(label[0], step.matrix, offset, order=0, mode="grid-constant")
    assert (found["label"][0].numpy() == nearest).mean() > 0.999  # float32 decides a tie in another way
    assert not np.allclose(found["image"], image)


def test_draws_lie_within_their_ranges_and_fill_them() -> None:
    ranges = AffineRanges(np.deg2rad(15), 0.0, 0.0, 0.0)
    step = recorded(ranges, 0)
    patch: dict[Any, Any] = {"image": torch.zeros(1, 4, 4), "label": torch.zeros(1, 4, 4)}
    angles = []
    for _ in range(400):
        step(patch)
        assert np.allclose(step.matrix @ step.matrix.T, np.eye(2))
        angles.append(np.rad2deg(np.arctan2(step.matrix[1, 0], step.matrix[0, 0])))
    assert -15 <= min(angles) < -14
    assert 14 < max(angles) <= 15
    scaled = recorded(AffineRanges(0.0, 0.12, 0.0, 0.0), 0)
    scales = []
    for _ in range(400):
        scaled(patch)
        assert np.allclose(scaled.matrix, np.diag(np.diag(scaled.matrix)))
        scales += np.diag(scaled.matrix).tolist()
    assert (min(scales), max(scales)) == (pytest.approx(0.88, abs=0.005), pytest.approx(1.12, abs=0.005))


def test_no_ranges_change_nothing() -> None:
    image, label = (torch.from_numpy(one) for one in blobs((8, 9, 7), 0))
    found = RandAffineMapd(BOTH, 1.0, AffineRanges(0.0, 0.0, 0.0, 0.0))({"image": image, "label": label})
    assert torch.allclose(found["image"], image, atol=1e-6)
    assert torch.equal(found["label"], label)


def test_a_quarter_turn_goes_from_the_first_axis_towards_the_second() -> None:
    assert np.allclose(rotation(3, (0, 2), np.pi / 2) @ [1, 0, 0], [0, 0, 1])


def test_noise_has_a_deviation_drawn_from_its_range_and_leaves_the_global_generator() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    step = RandNoised("image", 1.0, 0.2)
    step.set_random_state(1)
    image = torch.full((2, 30, 30, 30), 3.0)
    found = [step({"image": image, "label": image})["image"] - image for _ in range(60)]
    assert torch.equal(torch.get_rng_state(), before)
    deviations = np.array([float(one.std()) for one in found])
    assert 0 < deviations.min() < 0.02
    assert 0.18 < deviations.max() < 0.202
    assert all(abs(float(one.mean())) < 0.005 for one in found)
    assert abs(np.corrcoef(found[0].flatten(), found[1].flatten())[0, 1]) < 0.02
