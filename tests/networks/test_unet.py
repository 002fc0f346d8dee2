"""The U-Net against arithmetic: parameters, receptive field, deep supervision, and settings that it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.networks.nets.dynunet import DynUNet

from medseg.config import validate
from medseg.errors import ConfigError
from medseg.networks import AttentionUNetConfig, NetworkConfig, SwinUNETRConfig, UNetConfig
from medseg.networks.unets.unet_module import UNet


def built(config: NetworkConfig, in_channels: int, out_channels: int) -> UNet:
    network = config.build(in_channels, out_channels)
    assert isinstance(network, UNet)
    return network


@pytest.mark.parametrize("dims", [2, 3])
def test_parameters_are_as_many_as_arithmetic_says(dims: int) -> None:
    network = UNetConfig(spatial_dims=dims, channels=(4, 6, 10)).build(2, 3)
    k, k_up = 3**dims, 2**dims
    encoder = k * (2 * 4 + 4 * 4 + 4 * 6 + 6 * 6 + 6 * 10 + 10 * 10) + 2 * 2 * (4 + 6 + 10)
    upsampling = k_up * (10 * 6 + 6 * 4) + 6 + 4
    decoder = k * (12 * 6 + 6 * 6 + 8 * 4 + 4 * 4) + 2 * 2 * (6 + 4)
    head = 4 * 3 + 3
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert counted == encoder + upsampling + decoder + head


@pytest.mark.parametrize("dims", [2, 3])
def test_logits_equal_those_of_monais_dynunet_with_the_same_weights(dims: int) -> None:
    """The plain U-Net is nnU-Net's as MONAI keeps it, with uneven strides and all supervision heads.

    One kernel for all stages: MONAI, other than nnU-Net, gives a stage of the decoder the kernel of the coarser one.
    """
    torch.manual_seed(0)
    config = UNetConfig(
        spatial_dims=dims,
        channels=(4, 6, 8, 10),
        strides=(2, (2, 1, 2)[:dims], 2),
        kernel_sizes=((3, 5, 1)[:dims],) * 4,
        deep_supervision=2,
    )
    ours = built(config, 2, 3)
    theirs = DynUNet(
        spatial_dims=dims,
        in_channels=2,
        out_channels=3,
        kernel_size=config.stage_kernels(),
        strides=config.stage_strides(),
        upsample_kernel_size=config.stage_strides()[1:],
        filters=config.channels,
        deep_supervision=True,
        deep_supr_num=2,
        trans_bias=True,
    )
    upsamples: list[Any] = list(theirs.upsamples)[::-1]  # finest first
    blocks = [theirs.input_block, *theirs.downsamples, theirs.bottleneck, *(one.conv_block for one in upsamples)]
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    for stage, block in zip([*ours.encoder, *ours.decoder], blocks, strict=True):
        _copy(stage, block.conv1.conv, block.norm1, block.conv2.conv, block.norm2)
    for upsampler, block in zip(ours.upsamplers, upsamples, strict=True):
        _copy(upsampler, block.transp_conv.conv)
    for head, block in zip(ours.heads, [theirs.output_block, *theirs.deep_supervision_heads], strict=True):
        _copy(head, block.conv.conv)

    image = torch.randn(2, 2, *(32, 16, 16)[:dims])
    expected, found = theirs(image), ours(image)
    for one, level in zip(expected.unbind(dim=1), found, strict=True):
        torch.testing.assert_close(torch.nn.functional.interpolate(level, one.shape[2:]), one)
    torch.testing.assert_close(ours.eval()(image), theirs.eval()(image))


def _copy(target: torch.nn.Module, *sources: torch.nn.Module) -> None:
    """Puts the parameters of the sources into the target's, one after the other."""
    values = [parameter for source in sources for parameter in source.parameters()]
    with torch.no_grad():
        for parameter, value in zip(target.parameters(), values, strict=True):
            parameter.copy_(value)


@pytest.mark.parametrize("downsampling", ["strided", "average_pool"])
def test_receptive_field_is_what_a_gradient_sees(downsampling: str) -> None:
    config = UNetConfig(
        spatial_dims=2, channels=(2, 2, 2), strides=(2, (1, 2)), downsampling=downsampling, normalisation="none"
    )
    network = built(config, 1, 1)
    for parameter in network.parameters():
        torch.nn.init.ones_(parameter)
    image = torch.ones(1, 1, 64, 64, requires_grad=True)
    features = image
    for stage in network.encoder:
        features = stage(features)
    features[0, 0, features.shape[2] // 2, features.shape[3] // 2].backward()
    assert image.grad is not None
    seen = image.grad[0, 0].abs() > 0
    assert (int(seen.any(dim=1).sum()), int(seen.any(dim=0).sum())) == config.receptive_field()


def test_deep_supervision_gives_the_finest_logits_first_and_only_in_training() -> None:
    network = UNetConfig(channels=(2, 3, 4, 5), strides=(2, (2, 2, 1), 2), deep_supervision=2).build(1, 2)
    image = torch.randn(1, 1, 16, 16, 8)
    assert [tuple(one.shape[2:]) for one in network(image)] == [(16, 16, 8), (8, 8, 4), (4, 4, 4)]
    assert network.eval()(image).shape == (1, 2, 16, 16, 8)


def test_interpolation_after_the_convolution_equals_interpolation_before_it() -> None:
    network = built(UNetConfig(channels=(2, 3), upsampling="interpolated"), 1, 2)
    convolution, upsample = network.upsamplers[0].children()
    coarse = torch.randn(1, 3, 4, 4, 4)
    torch.testing.assert_close(upsample(convolution(coarse)), convolution(upsample(coarse)))


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = UNetConfig(channels=(2, 4), dropout=0.2, checkpointing=checkpointing).build(1, 2)
        network(torch.randn(2, 1, 8, 8, 8)).square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        assert torch.equal(plain, recomputed)


def test_weights_start_kaiming_normal_and_biases_at_zero() -> None:
    torch.manual_seed(0)
    network = built(UNetConfig(channels=(64, 64)), 1, 2)
    weight = network.get_parameter("encoder.1.body.0.weight")
    assert float(weight.detach().std()) == pytest.approx((2 / (64 * 27)) ** 0.5, rel=0.02)
    assert all(not parameter.any() for name, parameter in network.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize(
    ("settings", "content", "says"),
    [
        (UNetConfig, {"strides": [2, 2]}, "strides has 2 entries, but 4 channels need 3"),
        (UNetConfig, {"kernel_sizes": [3, 3, 3, 4]}, "must be odd"),
        (UNetConfig, {"strides": [2, [2, 2], 2]}, "give one number, or 3"),
        (UNetConfig, {"deep_supervision": 3}, "4 stages allow 0 to 2"),
        (UNetConfig, {"deep_supervision": True}, "deep_supervision"),
        (UNetConfig, {"normalisation": "group", "groups": 5}, "cannot be split in 5 groups"),
        (UNetConfig, {"normalisation": "batch", "checkpointing": True}, "twice a step"),
        (UNetConfig, {"downsampling": "max"}, "'max' is not known; known: strided, max_pool, average_pool"),
        (UNetConfig, {"attention": [{"name": "gate", "at": ["encoder"]}]}, "'encoder' is not known; known: skip"),
        (UNetConfig, {"attention": [{"name": "spatial"}]}, "key 'attention.0.at' is missing"),
        (UNetConfig, {"attention": [{"name": "spatial", "at": []}]}, "attention.0.at: [] is refused"),
        (UNetConfig, {"attention": [{"name": "spatial", "at": ["head"]}]}, "'head' is not known; known: encoder"),
        (UNetConfig, {"attention": [{"name": "cbam", "at": ["skip"], "kernel_size": 4}]}, "4 must be odd"),
        (UNetConfig, {"attention": [{"name": "sqeeze_excitation", "at": ["skip"]}]}, "mean 'squeeze_excitation'"),
        (UNetConfig, {"attention": [{"name": "gate"}, {"name": "gate"}]}, "names 'gate' at skip twice"),
        (UNetConfig, {"attention": [{"name": "gate"}], "skips": "none"}, "has nothing to weigh"),
        (UNetConfig, {"chanels": [8, 16]}, "did you mean 'channels'"),
        (UNetConfig, {"channels": [8]}, "channels"),
        (UNetConfig, {"spatial_dims": 4}, "spatial_dims"),
        (AttentionUNetConfig, {"channels": [1, 8]}, "2 or more"),
        (AttentionUNetConfig, {"kernel_size": 2}, "must be odd"),
        (AttentionUNetConfig, {"strides": [2]}, "4 channels need 3"),
        (SwinUNETRConfig, {"feature_size": 20}, "feature_size"),
        (SwinUNETRConfig, {"heads": [5, 6, 12, 24]}, "5 does not"),
        (SwinUNETRConfig, {"window": [7, 7]}, "give one number, or 3"),
        (SwinUNETRConfig, {"window": 1}, "window [1, 1, 1] must be 2 or more"),
        (SwinUNETRConfig, {"window": [7, 7, 1]}, "window [7, 7, 1] must be 2 or more"),
    ],
)
def test_wrong_settings_are_refused_with_the_reason(settings: type[Any], content: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(settings, content, "experiment.yaml")
    assert says in str(caught.value)


def test_the_nearest_sizes_are_named() -> None:
    with pytest.raises(ConfigError) as caught:
        UNetConfig().check_size([40, 50, 40], "patch_size")
    assert str(caught.value) == (
        "patch_size [40, 50, 40] does not fit: network 'unet' needs multiples of 8; "
        "nearest: [40, 48, 40] or [40, 56, 40]"
    )


def test_no_axis_may_be_empty_or_below_one_unit() -> None:
    with pytest.raises(ConfigError, match=r"nearest: \[16, 8, 8\]"):
        UNetConfig().check_size([0, -8, 5], "patch_size")
