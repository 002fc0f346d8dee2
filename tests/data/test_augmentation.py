"""Contracts over the catalogue of augmentations: geometry moves both, intensity the image alone, the seed decides."""

from typing import Literal

import numpy as np
import pytest
import torch
from monai.transforms import Compose

from medseg.data.augmentation import AUGMENTATIONS, AugmentationConfig, ResizedCrop
from medseg.data.loaders import plain_tensors

GEOMETRIC = {"flip", "rotate90", "affine", "elastic", "grid_distortion", "resized_crop"}
CASES = [(name, dims) for name in AUGMENTATIONS.names() for dims in (2, 3)]


def always(name: str) -> AugmentationConfig:
    settings = {"probability": 1.0, **({"axes": (0, 1)} if name == "flip" else {})}
    return AUGMENTATIONS[name].model_validate({"name": name, **settings})


def patch(dims: int, channels: int) -> dict[str, torch.Tensor]:
    """A bright ball on noise, and the ball's label."""
    axes = np.meshgrid(*[np.arange(24.0)] * dims, indexing="ij")
    ball = sum((axis - 8.0) ** 2 for axis in axes) < 36
    image = np.random.default_rng(1).normal(size=(channels, *ball.shape)) * 0.05 + ball * 2.0
    return {"image": torch.from_numpy(image).float(), "label": torch.from_numpy(ball[None]).float()}


def changed(name: str, dims: int, seed: int) -> dict[str, torch.Tensor]:
    with plain_tensors():
        transform = Compose(always(name).build(dims))
        transform.set_random_state(seed)
        return transform(patch(dims, 3 if name == "colour" else 1))


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_shape_type_and_finiteness_hold(name: str, dims: int) -> None:
    before, after = patch(dims, 3 if name == "colour" else 1), changed(name, dims, 3)
    for key in ("image", "label"):
        assert type(after[key]) is torch.Tensor
        assert after[key].shape == before[key].shape
        assert after[key].dtype == torch.float32
        assert torch.isfinite(after[key]).all()
    assert set(after["label"].unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_the_seed_alone_decides(name: str, dims: int) -> None:
    one, same, other = changed(name, dims, 5), changed(name, dims, 5), changed(name, dims, 6)
    assert torch.equal(one["image"], same["image"])
    assert torch.equal(one["label"], same["label"])
    if name not in ("flip", "rotate90"):  # these have few outcomes
        assert not torch.equal(one["image"], other["image"])


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_geometry_moves_both_and_intensity_the_image_alone(name: str, dims: int) -> None:
    before = patch(dims, 3 if name == "colour" else 1)
    for seed in range(4):
        after = changed(name, dims, seed)
        if name in GEOMETRIC:
            bright = after["image"][0] > 1.0
            overlap = 2 * (bright & (after["label"][0] > 0)).sum() / (bright.sum() + after["label"].sum())
            assert overlap > 0.85
        else:
            assert torch.equal(after["label"], before["label"])
            assert not torch.equal(after["image"], before["image"])


@pytest.mark.parametrize(("name", "dims"), CASES)
@pytest.mark.parametrize("content", ["one value", "two neighbouring values", "nothing"])
def test_flat_patches_of_several_channels_stay_finite(name: str, dims: int, content: str) -> None:
    image = torch.full((3, *[12] * dims), 0.0 if content == "nothing" else 3.0)
    if content == "two neighbouring values":
        image[0, 0] = torch.nextafter(torch.tensor(3.0), torch.tensor(4.0))
    with plain_tensors():
        transform = Compose(always(name).build(dims))
        transform.set_random_state(2)
        after = transform({"image": image, "label": torch.zeros(1, *image.shape[1:])})["image"]
    assert after.shape == image.shape
    assert torch.isfinite(after).all()


@pytest.mark.parametrize(("name", "dims"), CASES)
def test_the_generators_of_torch_and_numpy_stay_untouched(name: str, dims: int) -> None:
    before, numpy_before = torch.get_rng_state(), np.random.get_state(legacy=False)
    changed(name, dims, 3)
    assert torch.equal(torch.get_rng_state(), before)
    numpy_after = np.random.get_state(legacy=False)
    assert numpy_after["state"]["pos"] == numpy_before["state"]["pos"]
    assert np.array_equal(numpy_after["state"]["key"], numpy_before["state"]["key"])


def test_probability_zero_changes_nothing() -> None:
    for name in AUGMENTATIONS.names():
        config = AUGMENTATIONS[name].model_validate({"name": name, "probability": 0.0})
        before = patch(3, 3)
        with plain_tensors():
            after = Compose(config.build(3))(dict(before))
        assert torch.equal(after["image"], before["image"])


def test_resized_crop_magnifies() -> None:
    with plain_tensors():
        transform = Compose(ResizedCrop(probability=1.0, share=(0.5, 0.5)).build(2))
        transform.set_random_state(0)
        image = torch.arange(24.0).repeat(24, 1)[None]
        after = transform({"image": image, "label": torch.zeros_like(image)})
    step = (after["image"][0, 0, 1:] - after["image"][0, 0, :-1])[2:-2]
    assert torch.allclose(step, torch.full_like(step, 0.5), atol=1e-3)  # half the box, twice the size


def test_an_augmentation_must_say_how_it_is_built() -> None:
    class Nameless(AugmentationConfig):
        name: Literal["nameless"] = "nameless"

    with pytest.raises(TypeError, match="abstract"):
        Nameless()  # type: ignore[abstract]
