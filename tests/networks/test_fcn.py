"""The FCN against arithmetic and the paper: parameters, receptive field, fusion, and the way it begins to upsample."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import interpolate

from medseg.config import validate
from medseg.errors import ConfigError
from medseg.networks import FCNConfig
from medseg.networks.fully_convolutional.fcn_module import FCN

VGG: dict[str, Any] = {"channels": (64, 128, 256, 512, 512), "classifier_width": 4096, "normalisation": "none"}


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("stride", "scored", "fusions"), [(32, (6,), 0), (16, (6, 5), 1), (8, (6, 5, 4), 2)])
def test_parameters_are_as_many_as_arithmetic_says(
    dims: int, stride: int, scored: tuple[int, ...], fusions: int
) -> None:
    config = FCNConfig(
        spatial_dims=dims,
        stride=stride,
        channels=(2, 3, 4, 5, 5),
        convs=(1, 2, 1, 1, 2),
        classifier_width=6,
        classifier_kernel=5,
    )
    k, classes = 3**dims, 7
    stages = k * (1 * 2 + 2 * 3 + 3 * 3 + 3 * 4 + 4 * 5 + 5 * 5 + 5 * 5) + 2 * (2 + 3 + 3 + 4 + 5 + 5 + 5)
    classifier = 5**dims * 5 * 6 + 6 + 6 * 6 + 6
    scores = sum(width * classes + classes for width in scored)
    assert count(config.build(1, classes)) == stages + classifier + scores + fusions * 4**dims * classes**2


def test_with_the_settings_of_the_paper_it_has_the_parameters_of_vgg_16() -> None:
    """VGG-16's 14 714 688 of convolutions, 102 764 544 and 16 781 312 of fc6 and fc7, and 21 class scores."""
    with torch.device("meta"):
        flat = FCN(FCNConfig(spatial_dims=2, stride=32, **VGG), 3, 21)
        deep = FCN(FCNConfig(spatial_dims=3, stride=32, **VGG), 1, 2)
    assert count(flat) == 14_714_688 + 102_764_544 + 16_781_312 + 4096 * 21 + 21
    assert deep.get_parameter("classifier.0.weight").numel() == 719_323_136


def test_receptive_field_of_vgg_16_is_404_and_what_a_gradient_sees() -> None:
    config = FCNConfig(spatial_dims=2, stride=32, channels=(1,) * 5, classifier_width=1, normalisation="none")
    assert config.receptive_field() == (404, 404)
    network = FCN(config, 1, 1)
    for parameter in network.parameters():
        nn.init.ones_(parameter)
    for index, stage in enumerate(network.stages):  # a maximum of equals would pass the gradient to one of them
        assert isinstance(stage, nn.Sequential)
        network.stages[index] = nn.Sequential(*stage[:-1], nn.AvgPool2d(2))
    image = torch.ones(1, 1, 1024, 32, requires_grad=True)
    features = image
    for stage in network.stages:
        features = stage(features)
    network.scores[0](network.classifier(features))[0, 0, 16, 0].backward()
    assert image.grad is not None
    assert int((image.grad[0, 0, :, 0] > 0).sum()) == 404


@pytest.mark.parametrize("dims", [2, 3])
def test_upsampling_begins_as_linear_interpolation_of_each_class(dims: int) -> None:
    network = FCN(FCNConfig(spatial_dims=dims, channels=(1,) * 5, classifier_width=1, stride=16), 1, 3)
    scores = torch.randn(1, 3, *(5,) * dims)
    expected = interpolate(scores, scale_factor=2, mode=("bilinear", "trilinear")[dims - 2])
    found = network.upsamplers[0](scores)
    for axis in range(2, 2 + dims):  # outside the grid a transposed convolution sees zeros
        found, expected = (one.narrow(axis, 1, 8) for one in (found, expected))
    torch.testing.assert_close(found, expected)


def test_scores_of_three_depths_are_summed() -> None:
    """With all scores but one switched off, the logits are that one's, interpolated."""
    config = FCNConfig(spatial_dims=2, channels=(2, 2, 3, 3, 3), convs=(1,) * 5, classifier_width=4, stride=8)
    network = FCN(config, 1, 2)
    biases = torch.tensor([[1.0, -2.0], [4.0, 8.0], [0.5, 0.25]])
    for score, bias in zip(network.scores, biases, strict=True):
        nn.init.zeros_(score.get_parameter("weight"))
        with torch.no_grad():
            score.get_parameter("bias").copy_(bias)
    logits = network(torch.randn(1, 1, 192, 192))
    torch.testing.assert_close(logits[0, :, 96, 96], biases.sum(dim=0))


def test_finer_strides_draw_finer_borders() -> None:
    """What a logit can differ by from its neighbour: a coarse grid's interpolation is linear over 32 voxels."""
    curvatures = []
    for stride in (32, 8):
        torch.manual_seed(0)
        config = FCNConfig(spatial_dims=2, channels=(4,) * 5, convs=(1,) * 5, classifier_width=4, stride=stride)
        with torch.no_grad():
            line = FCN(config, 1, 1)(torch.randn(1, 1, 256, 256))[0, 0, 128]
        curvatures.append(int((line.diff().diff().abs() > 1e-4).sum()))
    assert curvatures[0] <= 2 * 256 // 32 < curvatures[1]


@pytest.mark.parametrize("normalisation", ["instance", "batch", "group", "none"])
@pytest.mark.parametrize("dims", [2, 3])
def test_a_batch_of_one_trains_on_two_voxels_of_the_coarsest_grid(dims: int, normalisation: str) -> None:
    torch.manual_seed(0)
    config = FCNConfig(
        spatial_dims=dims,
        channels=(2, 2, 4, 4, 4),
        convs=(1,) * 5,
        classifier_width=4,
        normalisation=normalisation,
        groups=2,
        dropout=0.5,
    )
    network = config.build(1, 2)
    logits = network(torch.randn(1, 1, 64, *(32,) * (dims - 1)))
    logits.square().mean().backward()
    assert logits.isfinite().all()
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"stride": 4}, "stride"),
        ({"channels": [8, 16]}, "channels"),
        ({"classifier_kernel": 4}, "must be odd"),
        ({"normalisation": "layer"}, "'layer' is not known"),
        ({"normalisation": "group", "groups": 3}, "[32, 64, 128, 256, 256] cannot be split in 3 groups"),
        ({"classifier_widht": 8}, "did you mean 'classifier_width'"),
    ],
)
def test_wrong_settings_are_refused_with_the_reason(content: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(FCNConfig, content, "experiment.yaml")
    assert says in str(caught.value)
