"""The residual-encoder U-Net against arithmetic: parameters, receptive field, the shortcut, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional

from medseg.config import validate
from medseg.errors import ConfigError
from medseg.networks import ResidualEncoderUNetConfig
from medseg.networks.unets.residual_encoder_unet_module import ResidualBlock
from medseg.networks.unets.unet import UNetConfig
from medseg.networks.unets.unet_module import UNet


@pytest.mark.parametrize("dims", [2, 3])
def test_parameters_are_as_many_as_arithmetic_says(dims: int) -> None:
    config = ResidualEncoderUNetConfig(spatial_dims=dims, channels=(4, 6, 6), blocks=(1, 3, 2))
    k, k_up = 3**dims, 2**dims
    stem = k * 2 * 4 + 2 * 4
    first = 2 * k * 4 * 4 + 4 * 4
    second = k * 4 * 6 + 5 * k * 6 * 6 + 4 * 3 * 6 + 4 * 6 + 2 * 6
    third = 4 * k * 6 * 6 + 4 * 2 * 6
    upsampling = k_up * (6 * 6 + 6 * 4) + 6 + 4
    decoder = k * (12 * 6 + 8 * 4) + 2 * (6 + 4)
    head = 4 * 3 + 3
    counted = sum(parameter.numel() for parameter in config.build(2, 3).parameters())
    assert counted == stem + first + second + third + upsampling + decoder + head


def test_the_defaults_are_as_large_as_nnu_net_makes_them() -> None:
    """nnU-Net builds 102 349 770 weights of these settings, the biases included that its norms take off again."""
    with torch.device("meta"):
        network = ResidualEncoderUNetConfig(deep_supervision=4).build(1, 2)
    stem, decoder = 32, 32 + 64 + 128 + 256 + 320
    blocks = 2 * (1 * 32 + 3 * 64 + 4 * 128 + 6 * 256 + 6 * 320 + 6 * 320)
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert counted + stem + blocks + decoder == 102_349_770


@pytest.mark.parametrize("kernels", [None, (3, 1, 3)])
def test_receptive_field_is_what_a_gradient_sees(kernels: Any) -> None:
    config = ResidualEncoderUNetConfig(
        spatial_dims=2, channels=(2, 2, 4), blocks=(1, 2, 1), strides=(2, (1, 4)), kernel_sizes=kernels
    )
    network = config.build(1, 1)
    assert isinstance(network, UNet)
    features = image = torch.ones(1, 1, 128, 128, requires_grad=True)
    for module in network.modules():
        if isinstance(module, torch.nn.InstanceNorm2d):
            module.forward = torch.nn.Identity().forward  # type: ignore[method-assign]
    for parameter in network.parameters():
        torch.nn.init.ones_(parameter)
    for stage in network.encoder:
        features = stage(features)
    features[0, 0, features.shape[2] // 2, features.shape[3] // 2].backward()
    assert image.grad is not None
    seen = image.grad[0, 0].abs() > 0
    assert (int(seen.any(dim=1).sum()), int(seen.any(dim=0).sum())) == config.receptive_field()


@pytest.mark.parametrize("dims", [2, 3])
def test_the_shortcut_pools_and_then_widens(dims: int) -> None:
    """With the body silenced, a block is the activation of its shortcut alone."""
    torch.manual_seed(0)
    config = UNetConfig(spatial_dims=dims)
    stride, image = (2, 1, 2)[:dims], torch.randn(1, 3, *[6] * dims)
    block: Any = ResidualBlock(config, 3, 5, (3,) * dims, stride)
    torch.nn.init.zeros_(block.body[-1].weight)
    pool: Any = (functional.avg_pool2d, functional.avg_pool3d)[dims - 2]
    mixed = torch.einsum("oi,bi...->bo...", block.shortcut[1].weight.flatten(1), pool(image, stride))
    normed = functional.instance_norm(mixed)
    torch.testing.assert_close(block(image), functional.leaky_relu(normed, 0.01))
    same: Any = ResidualBlock(config, 3, 3, (3,) * dims, (1,) * dims)
    torch.nn.init.zeros_(same.body[-1].weight)
    torch.testing.assert_close(same(image), functional.leaky_relu(image, 0.01))


def test_deep_supervision_gives_the_finest_logits_first_and_only_in_training() -> None:
    network = ResidualEncoderUNetConfig(channels=(2, 3, 4), blocks=(1, 1, 1), deep_supervision=1).build(1, 2)
    image = torch.randn(1, 1, 16, 8, 8)
    assert [tuple(one.shape[2:]) for one in network(image)] == [(16, 8, 8), (8, 4, 4)]
    assert network.eval()(image).shape == (1, 2, 16, 8, 8)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"blocks": [1, 3]}, "blocks has 2 entries, but 6 channels need as many"),
        ({"channels": [8, 16], "blocks": [1, 0]}, "blocks.1"),
        ({"strides": [2]}, "strides has 1 entries, but 6 channels need 5"),
        ({"deep_supervision": 5}, "6 stages allow 0 to 4"),
        ({"attention": [{"name": "gate", "at": ["decoder"]}]}, "known: skip"),
    ],
)
def test_wrong_settings_are_refused_with_the_reason(content: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(ResidualEncoderUNetConfig, content, "experiment.yaml")
    assert says in str(caught.value)
