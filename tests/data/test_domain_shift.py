"""The looks of other scanners: what each must keep (order, range, smoothness, norm) and what it may change."""

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from pydantic import ValidationError

from medseg.data.augmentation import AugmentationConfig, BiasField, HistogramShift, RandomConvolutions
from medseg.data.domain_shift import Layer, convolved
from medseg.data.loaders import plain_tensors

SHAPES = [(1, 20, 24), (3, 20, 24), (1, 14, 18, 12), (2, 14, 18, 12)]
SEEDS = range(8)


def changed(config: AugmentationConfig, image: torch.Tensor, seed: int) -> torch.Tensor:
    with plain_tensors():
        transform = Compose(config.build(image.ndim - 1))
        transform.set_random_state(seed)
        return transform({"image": image.clone(), "label": torch.zeros_like(image[:1])})["image"]


def noise(shape: tuple[int, ...], scale: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(7).normal(size=shape) * scale).float()


@pytest.mark.parametrize("shape", SHAPES)
def test_histogram_shift_keeps_the_order_and_the_range_of_each_channel(shape: tuple[int, ...]) -> None:
    image = noise(shape)
    image[0] *= 100  # beside which the other channels are nearly flat
    for seed in SEEDS:
        after = changed(HistogramShift(probability=1.0), image, seed)
        for old, new in zip(image.flatten(1), after.flatten(1), strict=True):
            rising = new[old.argsort()].diff()
            assert (rising >= 0).all()
            assert (new.min(), new.max()) == (old.min(), old.max())
            assert not torch.equal(new, old)
            assert len(new.unique()) > 0.9 * len(old.unique())


def test_histogram_shift_has_slopes_within_the_square_of_its_steepness() -> None:
    ramp = torch.linspace(-2, 5, 601).expand(4, 601)[None]
    slopes = torch.cat(
        [changed(HistogramShift(probability=1.0, points=7, steepness=2.0), ramp, s)[0, 0].diff() for s in SEEDS]
    )
    relative = slopes / (7 / 600)
    assert 0.249 < relative.min() < 0.8
    assert 1.25 < relative.max() < 4.01


def test_histogram_shift_draws_a_map_for_each_channel_and_random_convolutions_one_for_all() -> None:
    twice = noise((1, 10, 10)).expand(2, 10, 10)
    one, other = changed(HistogramShift(probability=1.0), twice, 1)
    assert not torch.allclose(one, other, atol=1e-3)
    one, other = changed(RandomConvolutions(probability=1.0), twice, 1)
    assert torch.allclose(one, other, atol=1e-5)


def test_histogram_shift_of_steepness_one_is_the_identity() -> None:
    image = noise((2, 9, 9, 9))
    after = changed(HistogramShift(probability=1.0, steepness=1.0), image, 0)
    assert torch.allclose(after, image, atol=1e-6)


def test_histogram_shift_leaves_a_flat_channel(recwarn: pytest.WarningsRecorder) -> None:
    image = torch.full((1, 8, 8), -0.7)
    assert torch.equal(changed(HistogramShift(probability=1.0), image, 0), image)
    assert not recwarn.list


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("degree", [1, 3])
def test_bias_field_is_smooth_and_within_its_strength(dims: int, degree: int) -> None:
    """By the inequality of the brothers Markov a polynomial within +-s on [-1, 1] has slopes up to degree ** 2 * s."""
    extent, strength = 24, 0.5
    flat = torch.ones(1, *[extent] * dims)
    flat[(0, *[0] * dims)] = 0.0  # the least value, from which signal is counted
    for seed in SEEDS:
        after = changed(BiasField(probability=1.0, degree=degree, strength=(strength, strength)), flat, seed)
        log_gain = after[0].clone().log()
        log_gain[tuple([0] * dims)] = torch.nan  # its gain is unknown
        assert float(log_gain.abs().nan_to_num(0).max()) <= strength + 1e-5
        assert float(log_gain.abs().nan_to_num(0).max()) > 0.5 * strength
        for axis in range(dims):
            steps = log_gain.diff(dim=axis).abs().nan_to_num(0)
            assert float(steps.max()) <= 1.1 * degree**2 * strength * 2 / (extent - 1)  # 1.1: peaks between voxels


@pytest.mark.parametrize("dims", [2, 3])
def test_bias_field_of_degree_one_is_a_ramp_through_the_middle(dims: int) -> None:
    flat = torch.ones(1, *[9] * dims)
    flat[(0, *[2] * dims)] = 0.0  # its gain is unknown, and so the opposite one is of no use
    for seed in SEEDS:
        log_gain = changed(BiasField(probability=1.0, degree=1, strength=(0.5, 0.5)), flat, seed)[0].log()
        opposite = log_gain.flip(tuple(range(dims)))
        known = log_gain.isfinite() & opposite.isfinite()
        assert known.sum() == log_gain.numel() - 2
        assert torch.allclose(log_gain[known], -opposite[known], atol=1e-5)
        bends = log_gain.diff(n=2, dim=0)
        assert torch.allclose(bends[bends.isfinite()], torch.zeros(()), atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_bias_field_of_no_strength_is_one_everywhere(shape: tuple[int, ...]) -> None:
    image = noise(shape)
    assert torch.equal(changed(BiasField(probability=1.0, strength=(0.0, 0.0)), image, 0), image)
    nearly = changed(BiasField(probability=1.0, strength=(0.01, 0.01)), image, 0)
    assert float((nearly - image).abs().max()) <= 0.0101 * float(image.max() - image.min())


@pytest.mark.parametrize("shape", SHAPES)
def test_bias_field_counts_signal_from_the_least_value_and_is_one_for_all_channels(shape: tuple[int, ...]) -> None:
    image = noise(shape)
    lowest = image.flatten(1).min(dim=1).values.view(-1, *[1] * (image.ndim - 1))
    for seed in SEEDS:
        after = changed(BiasField(probability=1.0), image, seed)
        signal = image - lowest
        gain = torch.where(signal > 0.5, (after - lowest) / signal, torch.nan)
        assert torch.equal(after[image == lowest], image[image == lowest])
        assert float(gain.nan_to_num(1).min()) >= np.exp(-0.4) - 1e-5
        assert float(gain.nan_to_num(1).max()) <= np.exp(0.4) + 1e-5
        assert torch.allclose((gain - gain[:1]).nan_to_num(0), torch.zeros(()), atol=1e-5)


def test_bias_field_does_not_depend_on_an_offset() -> None:
    image, config = noise((1, 12, 12, 12)), BiasField(probability=1.0)
    assert torch.allclose(changed(config, image + 5, 3), changed(config, image, 3) + 5, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_random_convolutions_keep_the_norm_of_each_channel(shape: tuple[int, ...]) -> None:
    image = noise(shape, 3.0)
    for seed in SEEDS:
        after = changed(RandomConvolutions(probability=1.0), image, seed)
        assert torch.allclose(after.flatten(1).norm(dim=1), image.flatten(1).norm(dim=1), rtol=1e-4)
        assert not torch.allclose(after, image, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
def test_random_convolutions_of_share_zero_leave_the_image(shape: tuple[int, ...]) -> None:
    image = noise(shape)
    assert torch.equal(changed(RandomConvolutions(probability=1.0, blend=(0.0, 0.0)), image, 1), image)


def test_random_convolutions_of_a_small_share_change_little() -> None:
    """Both parts have the image's norm: a share s moves it by 2 s of that at most, and so does scaling the blend."""
    image = noise((1, 16, 16, 16))
    for seed in SEEDS:
        after = changed(RandomConvolutions(probability=1.0, blend=(0.1, 0.1)), image, seed)
        assert float((after - image).norm()) <= 4 * 0.1 * float(image.norm())


@pytest.mark.parametrize("dims", [2, 3])
def test_random_convolutions_of_kernel_one_map_equal_intensities_to_equal_ones(dims: int) -> None:
    levels = torch.tensor([-1.5, -0.2, 0.0, 0.7, 2.0])
    image = levels[torch.from_numpy(np.random.default_rng(0).integers(0, 5, [2, *[13] * dims]))]
    image[1] = image[0].flip(0)  # as many of each level, so that both channels are scaled alike
    for seed in SEEDS:
        after = changed(RandomConvolutions(probability=1.0, kernels=(1,)), image, seed)
        for level in levels:
            values = after[image == level]
            assert torch.allclose(values, values[0], atol=1e-5)
        wide = changed(RandomConvolutions(probability=1.0, kernels=(3,)), image, seed)
        assert float(wide[image == levels[0]].std()) > 0.01


@pytest.mark.parametrize("dims", [2, 3])
def test_random_convolutions_leave_flat_patches_flat_and_channels_apart(dims: int) -> None:
    image = noise((2, *[12] * dims))
    flat = torch.full((1, *[12] * dims), 1.5)
    for seed in SEEDS:
        after = changed(RandomConvolutions(probability=1.0, kernels=(3,)), torch.cat([image, flat]), seed)
        alone = changed(RandomConvolutions(probability=1.0, kernels=(3,)), image, seed)
        assert torch.allclose(after[2].abs(), flat[0], atol=1e-4)  # its sign is the network's
        assert torch.allclose(after[:2], alone, atol=1e-5)


def test_random_convolutions_keep_edges_where_they_are() -> None:
    """A network of four wide layers sees four voxels far: farther from an edge each side is flat."""
    image = torch.zeros(1, 32, 16)
    image[0, 16:] = 1.0
    after = changed(RandomConvolutions(probability=1.0, kernels=(3,)), image, 2)[0]
    assert torch.allclose(after[:12], after[0, 0], atol=1e-5)
    assert torch.allclose(after[20:], after[-1, 0], atol=1e-5)
    assert abs(float(after[0, 0] - after[-1, 0])) > 1e-3


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("kernel", [1, 3])
def test_a_sum_of_shifted_images_is_a_convolution(dims: int, kernel: int) -> None:
    chance = np.random.RandomState(0)
    layer = Layer(chance.normal(size=(3, 2, *[kernel] * dims)), chance.normal(size=3))
    features = noise((2, 4, 9, 8, 7)[: 2 + dims])
    conv = {2: torch.nn.functional.conv2d, 3: torch.nn.functional.conv3d}[dims]
    batch = torch.nn.functional.pad(features.transpose(0, 1), [kernel // 2] * 2 * dims, mode="replicate")
    expected = conv(batch, torch.from_numpy(layer.weights).float(), torch.from_numpy(layer.biases).float())
    assert torch.allclose(convolved(features, layer).transpose(0, 1), expected, atol=1e-5)


Config = type[HistogramShift | BiasField | RandomConvolutions]
CONFIGS = [HistogramShift, BiasField, RandomConvolutions]


@pytest.mark.parametrize("config", CONFIGS)
def test_probability_is_the_share_of_patches_changed(config: Config) -> None:
    image = noise((1, 6, 6, 6))
    changes = [not torch.equal(changed(config(probability=0.5), image, seed), image) for seed in range(100)]
    assert 30 < sum(changes) < 70


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 1, 7), (1, 2, 3, 4)])
def test_thin_patches_are_served(config: Config, shape: tuple[int, ...]) -> None:
    for seed in SEEDS:
        after = changed(config(probability=1.0), noise(shape), seed)
        assert after.shape == shape
        assert torch.isfinite(after).all()


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("shape", SHAPES)
def test_they_work_where_the_image_lies(config: Config, shape: tuple[int, ...]) -> None:
    """A device without any memory: whoever looked at a value there, or mixed devices, would be refused."""
    after = changed(config(probability=1.0), torch.empty(shape, device="meta"), 0)
    assert (after.device.type, after.shape, after.dtype) == ("meta", shape, torch.float32)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_given_image_is_not_written_to(config: Config) -> None:
    image = noise((1, 8, 8))
    before = image.clone()
    with plain_tensors():
        Compose(config(probability=1.0).build(2))({"image": image, "label": image})
    assert torch.equal(image, before)


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        (HistogramShift, {"points": 2}),
        (HistogramShift, {"steepness": 0.5}),
        (BiasField, {"degree": 0}),
        (BiasField, {"strength": (0.4, 0.1)}),
        (BiasField, {"strength": (0.1, 50.0)}),
        (RandomConvolutions, {"layers": 0}),
        (RandomConvolutions, {"kernels": ()}),
        (RandomConvolutions, {"kernels": (2,)}),
        (RandomConvolutions, {"blend": (0.0, 1.5)}),
    ],
)
def test_settings_out_of_bounds_are_refused(config: Config, settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        config.model_validate(settings)
