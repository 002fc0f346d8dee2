"""DeepLabV3+ and PSPNet in 3D against arithmetic, and in 2D against the library that builds them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from medseg.config import validate
from medseg.errors import ConfigError
from medseg.extras import ZOO
from medseg.networks import DeepLabV3PlusConfig, PSPNetConfig
from medseg.networks.encoders.residual_encoder import ResidualEncoder
from medseg.networks.encoders.residual_plan import encoder_field, stage_steps
from medseg.networks.fully_convolutional.deeplabv3plus_module import AtrousPyramid, DeepLabV3Plus
from medseg.networks.fully_convolutional.pspnet_module import PSPNet

needs_zoo = pytest.mark.skipif(not ZOO.is_installed(), reason="needs the extra 'zoo'")
DEEPLAB: dict[str, Any] = {
    "channels": (4, 6, 6), "blocks": (1, 2, 1), "output_stride": 8, "rates": (1, 2, 3), "width": 8,
    "low_level_width": 4, "groups": 2,
}  # fmt: skip
PSP: dict[str, Any] = {"channels": (4, 8, 8), "blocks": (1, 2, 1), "width": 8, "groups": 2}


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def encoder_parameters(in_channels: int, widths: Sequence[int], blocks: Sequence[int], strides: Sequence[int]) -> int:
    total, before = 27 * in_channels * widths[0] + 2 * widths[0], widths[0]
    for width, many, stride in zip(widths, blocks, strides, strict=True):
        total += 27 * before * width + 27 * width**2 + 4 * width + (many - 1) * (54 * width**2 + 4 * width)
        total += before * width + 2 * width if before != width or stride != 1 else 0
        before = width
    return total


def test_stages_halve_down_to_the_output_stride_and_dilate_from_there() -> None:
    assert stage_steps(4, 16) == [(2, 1), (2, 1), (2, 1), (1, 2)]
    assert stage_steps(4, 8) == [(2, 1), (2, 1), (1, 2), (1, 4)]


@pytest.mark.parametrize("normalisation", ["group", "batch"])
def test_deeplab_has_as_many_parameters_as_arithmetic_says(normalisation: str) -> None:
    network = DeepLabV3PlusConfig(**DEEPLAB, normalisation=normalisation).build(2, 3)
    pyramid = 6 * 8 + 16 + 3 * (27 * 6 + 6 * 8 + 16) + 6 * 8 + 8 + 5 * 8 * 8 + 16
    decoder = 4 * 4 + 8 + 27 * 12 + 12 * 8 + 16 + 27 * 8 + 8 * 8 + 16
    assert count(network) == encoder_parameters(2, (4, 6, 6), (1, 2, 1), (2, 2, 1)) + pyramid + decoder + 8 * 3 + 3


def test_pspnet_has_as_many_parameters_as_arithmetic_says() -> None:
    network = PSPNetConfig(**PSP).build(2, 3)
    pyramid = 8 * 8 + 3 * 2 * 2 + 2
    fusion = 27 * 16 * 8 + 16
    assert count(network) == encoder_parameters(2, (4, 8, 8), (1, 2, 1), (2, 2, 1)) + pyramid + fusion + 8 * 3 + 3


@pytest.mark.parametrize(
    ("blocks", "output_stride"), [((1, 1), 8), ((2, 1, 1), 8), ((1, 2, 1), 16), ((1, 1, 1, 1), 16)]
)
def test_receptive_field_is_what_a_gradient_sees(blocks: tuple[int, ...], output_stride: int) -> None:
    encoder = ResidualEncoder(1, (1,) * len(blocks), blocks, output_stride, lambda width: nn.Identity())
    pyramid = AtrousPyramid(1, 1, (1, 2, 4), lambda width: nn.Identity())
    for parameter in [*encoder.parameters(), *pyramid.parameters()]:
        nn.init.ones_(parameter)
    widest = DeepLabV3PlusConfig(
        channels=(16,) * len(blocks),
        blocks=blocks,
        output_stride=output_stride,
        rates=(1, 2, 4),
    ).receptive_field()
    for features_of, field in (
        (lambda image: encoder(image)[-1], encoder_field(blocks, output_stride)),
        (lambda image: pyramid.branches[-1](encoder(image)[-1]), widest[0]),
    ):
        image = torch.ones(1, 1, 48 * output_stride, output_stride, output_stride, requires_grad=True)
        features_of(image)[0, 0, 24, 0, 0].backward()
        assert image.grad is not None
        assert int((image.grad[0, 0, :, 0, 0] > 0).sum()) == field


@pytest.mark.parametrize("network", [DeepLabV3PlusConfig(**DEEPLAB), PSPNetConfig(**PSP)], ids=["deeplab", "pspnet"])
def test_a_distant_voxel_tells_through_the_pooled_branch(network: Any) -> None:
    """Beyond the receptive field only pooling connects; an instance norm after it would cut that wire."""
    torch.manual_seed(0)
    built = network.build(1, 2)
    for module in built.modules():
        if isinstance(module, nn.Conv3d) and module.bias is not None:
            nn.init.constant_(module.bias, 10)  # no ReLU of a pooled branch is at rest
        if isinstance(module, nn.GroupNorm):  # its statistics would connect everything too
            module.register_forward_hook(lambda part, given, _: given[0] - given[0].mean(dim=1, keepdim=True))
    long = 2 * max(network.receptive_field()) // 8 * 8 + 64
    image = torch.randn(1, 1, long, 8, 8, requires_grad=True)
    built(image)[0, 0, 0, 0, 0].backward()
    assert image.grad is not None
    assert float(image.grad[0, 0, -1].abs().max()) > 0


def test_pyramid_holds_means_of_the_parts() -> None:
    """Along 6 voxels of a ramp the halves have means 1 and 4, interpolated between their centres."""
    network = PSPNet(PSPNetConfig(**PSP), 1, 2)
    ramp = torch.arange(6.0).view(1, 1, 6, 1, 1).expand(1, 8, 6, 2, 2)
    whole, halves = (network.get_submodule(f"pyramid.{index}.0") for index in (0, 1))
    means = halves(ramp)
    assert means[0, 0, :, 0, 0].tolist() == [1.0, 4.0]
    assert whole(ramp).flatten().tolist() == [2.5] * 8


def test_deeplab_joins_features_of_stride_4_with_context() -> None:
    network = DeepLabV3Plus(DeepLabV3PlusConfig(**DEEPLAB), 1, 2)
    fine, *_, coarse = network.encoder(torch.randn(1, 1, 16, 32, 16))
    assert fine.shape == (1, 4, 4, 8, 4)
    assert coarse.shape == (1, 6, 2, 4, 2)
    assert network.decoder(torch.cat((torch.zeros(1, 8, 4, 8, 4), network.squeeze(fine)), dim=1)).shape[1] == 8


@needs_zoo
@pytest.mark.parametrize("output_stride", [8, 16])
def test_in_2d_deeplab_is_the_librarys_own(output_stride: int) -> None:
    import segmentation_models_pytorch as smp

    theirs = smp.DeepLabV3Plus(
        "resnet18", encoder_weights=None, encoder_output_stride=output_stride, decoder_channels=32,
        decoder_atrous_rates=(6, 12, 18), in_channels=2, classes=3,
    ).eval()  # fmt: skip
    config = DeepLabV3PlusConfig(spatial_dims=2, encoder="resnet18", width=32, output_stride=output_stride)
    ours = config.build(2, 3).eval()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 2, 48, 32)
    torch.testing.assert_close(ours(image), theirs(image))
    theirs.check_input_shape(torch.empty(1, 2, *config.divisor()))


@needs_zoo
def test_in_2d_pspnet_is_the_librarys_own() -> None:
    import segmentation_models_pytorch as smp

    theirs = smp.PSPNet("resnet18", encoder_weights=None, psp_out_channels=32, in_channels=2, classes=3).eval()
    config = PSPNetConfig(spatial_dims=2, encoder="resnet18", width=32)
    ours = config.build(2, 3).eval()
    state = theirs.state_dict()
    ours.load_state_dict({name: state[name] for name in ours.state_dict()})
    idle = {name.split(".")[1] for name in state.keys() - ours.state_dict().keys()}
    assert idle == {"layer3", "layer4"}  # stages deeper than the decoder reads
    image = torch.randn(1, 2, 48, 32)
    torch.testing.assert_close(ours(image), theirs(image))
    theirs.check_input_shape(torch.empty(1, 2, *config.divisor()))


@needs_zoo
@pytest.mark.parametrize("settings", [DeepLabV3PlusConfig, PSPNetConfig])
def test_in_2d_a_mix_transformer_trains_at_the_smallest_size(settings: type[Any]) -> None:
    config = settings(spatial_dims=2, encoder="mit_b0", width=32)
    config.check_size((64, 32), "patch.size")
    with pytest.raises(ConfigError, match="multiples of 32"):
        config.check_size((48, 16), "patch.size")
    logits = config.build(1, 2)(torch.randn(1, 1, 64, 32))
    logits.square().mean().backward()
    assert logits.shape == (1, 2, 64, 32)


@pytest.mark.parametrize("settings", [DeepLabV3PlusConfig, PSPNetConfig])
def test_in_2d_the_receptive_field_of_the_3d_encoder_is_not_told(settings: type[Any]) -> None:
    assert len(settings().receptive_field()) == 3
    with pytest.raises(ConfigError, match=r"receptive field in 3D alone; in 2D encoder 'resnet34' decides it"):
        settings(spatial_dims=2).receptive_field()


@pytest.mark.parametrize(
    ("settings", "content", "says"),
    [
        (DeepLabV3PlusConfig, {"channels": [8, 16], "blocks": [1, 1]}, "2 stages, which end at stride 8, not at 16"),
        (DeepLabV3PlusConfig, {"blocks": [1, 1]}, "blocks has 2 entries, but there are 4 channels"),
        (DeepLabV3PlusConfig, {"output_stride": 32}, "output_stride"),
        (DeepLabV3PlusConfig, {"width": 8}, "leaves groups of one channel"),
        (DeepLabV3PlusConfig, {"normalisation": "instance"}, "'instance' is not known"),
        (DeepLabV3PlusConfig, {"encoder": "resnet18"}, "encoder is a key of 'deeplabv3plus' in 2D alone"),
        (DeepLabV3PlusConfig, {"spatial_dims": 2, "blocks": [1, 1, 1, 1]}, "blocks is a key of 'deeplabv3plus' in 3D"),
        (PSPNetConfig, {"channels": [8, 16, 20], "blocks": [1, 1, 1]}, "[20, 5] channels cannot be split in 8 groups"),
        (PSPNetConfig, {"channels": [8, 18], "blocks": [1, 1]}, "must be a multiple of 4 bins"),
        (PSPNetConfig, {"spatial_dims": 2, "bins": [1, 2]}, "bins is a key of 'pspnet' in 3D alone"),
        (PSPNetConfig, {"weights": "weights.pth"}, "weights is a key of 'pspnet' in 2D alone"),
    ],
)
def test_wrong_settings_are_refused_with_the_reason(settings: type[Any], content: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(settings, content, "experiment.yaml")
    assert says in str(caught.value)
