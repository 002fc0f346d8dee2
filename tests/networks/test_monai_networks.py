"""The networks that MONAI lends, against MONAI's own: the same outputs, the same gradients, and settings refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from monai.networks.nets.attentionunet import AttentionUnet
from monai.networks.nets.basic_unetplusplus import BasicUNetPlusPlus
from monai.networks.nets.mednext import MedNeXt, create_mednext
from monai.networks.nets.segresnet import SegResNet
from monai.networks.nets.segresnet_ds import SegResNetDS
from monai.networks.nets.swin_unetr import SwinUNETR
from monai.networks.nets.unetr import UNETR
from monai.networks.nets.vnet import VNet as MonaiVNet
from torch import nn

from medseg.config import validate
from medseg.errors import ConfigError
from medseg.networks import (
    AttentionUNetConfig,
    MedNeXtConfig,
    NetworkConfig,
    SegResNetConfig,
    SwinUNETRConfig,
    UNetPlusPlusConfig,
    UNETRConfig,
    VNetConfig,
)
from medseg.networks.unets.vnet_module import VNet

Builder = Callable[[int], nn.Module]  # number of axes -> network


def _size(kind: type[NetworkConfig], dims: int) -> tuple[int, ...]:
    """The smallest patch that leaves two voxels at the coarsest stage: of 32s for Swin UNETR, of 16s for the others."""
    step = 32 if kind is SwinUNETRConfig else 16
    return (2 * step, *[step] * (dims - 1))


def _seeded(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build()


def _outputs(found: Any) -> list[torch.Tensor]:
    return [found] if isinstance(found, torch.Tensor) else list(found)


class ReversedOutputs(BasicUNetPlusPlus):
    """MONAI's U-Net++, which gives the last node's logits last, and in evaluation those of all."""

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return super().forward(image)[::-1]


PAIRS: dict[str, tuple[dict[str, Any], type[NetworkConfig], Builder]] = {
    "attention_unet": (
        {"channels": (4, 6, 8), "strides": (4, 2), "kernel_size": 5, "dropout": 0.2},
        AttentionUNetConfig,
        lambda dims: AttentionUnet(dims, 2, 3, (4, 6, 8), (4, 2), kernel_size=5, up_kernel_size=5, dropout=0.2),
    ),
    "unet_plus_plus": (
        {"channels": (4, 4, 6, 8, 8), "last_channels": 5, "normalisation": "batch"},
        UNetPlusPlusConfig,
        lambda dims: BasicUNetPlusPlus(dims, 2, 3, (4, 4, 6, 8, 8, 5), norm="batch", bias=False),
    ),
    "unet_plus_plus_supervised": (
        {"channels": (4, 4, 6, 8, 8), "last_channels": 5, "deep_supervision": 3},
        UNetPlusPlusConfig,
        lambda dims: ReversedOutputs(
            dims, 2, 3, (4, 4, 6, 8, 8, 5), deep_supervision=True, norm=("instance", {"affine": True}), bias=False
        ),
    ),
    "vnet": ({}, VNetConfig, lambda dims: MonaiVNet(dims, 2, 3, dropout_prob_down=0.0, dropout_prob_up=(0.0, 0.0))),
    "vnet_prelu": ({"activation": "prelu"}, VNetConfig, lambda dims: MonaiVNet(dims, 2, 3, act="prelu")),
    "segresnet": (
        {"width": 8, "blocks_down": (1, 2, 1), "normalisation": "instance", "upsampling": "transposed"},
        SegResNetConfig,
        lambda dims: SegResNet(
            dims, 8, 2, 3, 0.0, norm=("instance", {"affine": True}), blocks_down=(1, 2, 1), blocks_up=(1, 1),
            upsample_mode="deconv",
        ),
    ),
    "segresnet_supervised": (
        {"width": 8, "blocks_down": (1, 1, 1, 1), "deep_supervision": 2, "groups": 4},
        SegResNetConfig,
        lambda dims: SegResNetDS(
            dims, 8, 2, 3, norm=("group", {"num_groups": 4}), blocks_down=(1, 1, 1, 1), dsdepth=3,
            upsample_mode="nontrainable",
        ),
    ),
    "mednext": (
        {"width": 4, "blocks": (1, 2, 1), "expansions": (2, 3, 4), "kernel_size": 5, "response_norm": True},
        MedNeXtConfig,
        lambda dims: MedNeXt(
            dims, 4, 2, 3, (2, 3), (3, 2), 4, 5, use_residual_connection=True, blocks_down=(1, 2),
            blocks_bottleneck=1, blocks_up=(2, 1), global_resp_norm=True,
        ),
    ),
    "mednext_supervised": (
        {"width": 4, "blocks": (1, 1, 1), "expansions": (2, 2, 2), "deep_supervision": 2},
        MedNeXtConfig,
        lambda dims: MedNeXt(
            dims, 4, 2, 3, kernel_size=3, deep_supervision=True, use_residual_connection=True, blocks_down=(1, 1),
            blocks_bottleneck=1, blocks_up=(1, 1),
        ),
    ),
    "unetr": (
        {"feature_size": 4, "hidden_size": 12, "mlp_size": 16, "heads": 2},
        UNETRConfig,
        lambda dims: UNETR(2, 3, _size(UNETRConfig, dims), 4, 12, 16, 2, spatial_dims=dims),
    ),
    "swin_unetr": (
        {"feature_size": 12, "depths": (1, 1, 2, 1), "heads": (2, 3, 4, 6), "window": 3},
        SwinUNETRConfig,
        lambda dims: SwinUNETR(
            2, 3, depths=(1, 1, 2, 1), num_heads=(2, 3, 4, 6), feature_size=12, window_size=3, spatial_dims=dims
        ),
    ),
    "swin_unetr_v2": (
        {"feature_size": 12, "depths": (1, 2, 1, 1), "v2": True, "window": 4},
        SwinUNETRConfig,
        lambda dims: SwinUNETR(
            2, 3, depths=(1, 2, 1, 1), feature_size=12, use_v2=True, window_size=4, spatial_dims=dims
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", PAIRS)
def test_logits_are_those_of_monai(name: str, dims: int) -> None:
    """In train mode with dropout off, so that batch statistics and every head of deep supervision are compared too."""
    settings, kind, monais = PAIRS[name]
    size = _size(kind, dims)
    config = kind.model_validate({"spatial_dims": dims, **settings}).sized(size)
    network, reference = _seeded(lambda: config.build(2, 3)), _seeded(lambda: monais(dims))
    for module in [*network.modules(), *reference.modules()]:
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    image = torch.randn(2, 2, *size)
    with torch.no_grad():
        expected, found = _outputs(reference(image)), _outputs(network(image))
        assert len(found) == len(expected) == 1 + settings.get("deep_supervision", 0)
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
        assert torch.equal(network.eval()(image), _outputs(reference.eval()(image))[0])


@pytest.mark.parametrize("size", ["S", "B", "M", "L"])
def test_the_papers_sizes_of_mednext_are_monais(size: str) -> None:
    """By the table in the config's docstring; on the meta device, so that no weight is made."""
    blocks, expansions = {
        "S": ((2, 2, 2, 2, 2), (2, 2, 2, 2, 2)),
        "B": ((2, 2, 2, 2, 2), (2, 3, 4, 4, 4)),
        "M": ((3, 4, 4, 4, 4), (2, 3, 4, 4, 4)),
        "L": ((3, 4, 8, 8, 8), (3, 4, 8, 8, 8)),
    }[size]
    with torch.device("meta"):
        network = MedNeXtConfig(blocks=blocks, expansions=expansions).build(1, 2)
        reference = create_mednext(size)
    shapes = {name: parameter.shape for name, parameter in reference.named_parameters()}
    assert {name: parameter.shape for name, parameter in network.named_parameters()} == shapes


SUPERVISED: list[tuple[NetworkConfig, list[int]]] = [
    (UNetPlusPlusConfig(spatial_dims=2, channels=(4, 4, 4, 4, 4), deep_supervision=1), [64, 64]),
    (UNetPlusPlusConfig(spatial_dims=2, channels=(4, 4, 4, 4, 4), deep_supervision=3), [64, 64, 64, 64]),
    (SegResNetConfig(spatial_dims=2, width=8, deep_supervision=2), [64, 32, 16]),
    (MedNeXtConfig(spatial_dims=2, width=4, deep_supervision=1), [64, 32]),
    (MedNeXtConfig(spatial_dims=2, width=4, deep_supervision=4), [64, 32, 16, 8, 4]),
]


@pytest.mark.parametrize(("config", "sizes"), SUPERVISED)
def test_deep_supervision_gives_the_finest_logits_first_and_teaches_every_weight(
    config: NetworkConfig, sizes: list[int]
) -> None:
    network = _seeded(lambda: config.build(1, 3))
    image = torch.randn(2, 1, 64, 64)
    logits = network(image)
    assert [tuple(one.shape) for one in logits] == [(2, 3, size, size) for size in sizes]
    torch.stack([one.square().mean() for one in logits]).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in network.parameters())
    assert network.eval()(image).shape == (2, 3, 64, 64)


def test_the_last_node_of_unet_plus_plus_comes_first() -> None:
    config = UNetPlusPlusConfig(spatial_dims=2, channels=(4, 4, 4, 4, 4), deep_supervision=2)
    network, image = _seeded(lambda: config.build(1, 2)), torch.randn(1, 1, 32, 32)
    first = network(image)[0]
    assert torch.equal(network.eval()(image), first)  # instance norm and no dropout: both modes agree


CHECKPOINTED: dict[str, tuple[type[NetworkConfig], dict[str, Any]]] = {
    "unet_plus_plus": (UNetPlusPlusConfig, {"channels": (2, 2, 4, 4, 4), "dropout": 0.2, "deep_supervision": 3}),
    "segresnet": (SegResNetConfig, {"width": 8, "blocks_down": (1, 1, 1), "dropout": 0.2}),
    "segresnet_supervised": (SegResNetConfig, {"width": 8, "blocks_down": (1, 1, 1), "deep_supervision": 1}),
    "mednext": (MedNeXtConfig, {"width": 4, "blocks": (1, 1, 1), "expansions": (2, 2, 2)}),
    "unetr": (UNETRConfig, {"feature_size": 4, "hidden_size": 12, "mlp_size": 16, "heads": 2, "dropout": 0.2}),
    "swin_unetr": (SwinUNETRConfig, {"feature_size": 12, "depths": (2, 1, 1, 1), "dropout": 0.2}),
    "swin_unetr_v2": (SwinUNETRConfig, {"feature_size": 12, "depths": (2, 1, 1, 1), "drop_path": 0.2, "v2": True}),
}


@pytest.mark.parametrize(
    ("name", "dims"),
    [
        pytest.param(name, dims, marks=[pytest.mark.slow] if dims == 3 and "swin" in name else [])
        for name in CHECKPOINTED
        for dims in (2, 3)
    ],
)
def test_checkpointing_holds_less_and_changes_no_gradient(name: str, dims: int) -> None:
    """What the forward pass holds is counted as the bytes that autograd saves for the backward pass."""
    kind, settings = CHECKPOINTED[name]
    size = _size(kind, dims)
    gradients, held = [], []
    for checkpointing in (False, True):
        config = kind.model_validate({"spatial_dims": dims, **settings, "checkpointing": checkpointing}).sized(size)
        network = _seeded(lambda config=config: config.build(1, 2))  # type: ignore[misc]
        saved = [0]

        def keep(tensor: torch.Tensor, saved: list[int] = saved) -> torch.Tensor:
            saved[0] += tensor.nbytes
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            logits = network(torch.randn(2, 1, *size))
        held.append(saved[0])
        torch.stack([one.square().mean() for one in _outputs(logits)]).sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert held[1] < held[0]
    assert all(torch.equal(plain, recomputed) for plain, recomputed in zip(*gradients, strict=True))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("channels", [3, 5, 20])
def test_vnet_repeats_as_many_channels_as_an_image_has(dims: int, channels: int) -> None:
    """With its convolution at zero, the first stage gives the repeated image alone: feature i is channel i modulo C."""
    first = VNet(VNetConfig(spatial_dims=dims), channels, 2).eval().first
    nn.init.zeros_(first.get_parameter("conv_block.conv.weight"))
    image = torch.rand(1, channels, *[16] * dims)  # not below 0, where ELU would bend it
    expected = torch.stack([image[:, i % channels] for i in range(16)], dim=1)
    torch.testing.assert_close(first(image), expected)


@pytest.mark.parametrize("dims", [2, 3])
def test_vnet_drops_whole_channels_everywhere_that_it_drops(dims: int) -> None:
    """MONAI's default would drop whole images in 2D, and half of two skips whatever is asked for."""
    network = VNetConfig(spatial_dims=dims, dropout=0.3).build(1, 2)
    dropouts = [module for module in network.modules() if isinstance(module, nn.modules.dropout._DropoutNd)]
    assert len(dropouts) == 8  # two down, two up, four skips
    assert {(type(one), one.p) for one in dropouts} == {((nn.Dropout2d, nn.Dropout3d)[dims - 2], 0.3)}


def test_unetr_is_built_for_the_patch_and_refuses_any_other() -> None:
    config = UNETRConfig(spatial_dims=2, feature_size=4, hidden_size=12, mlp_size=16, heads=2)
    config.check_size((64, 32), "patch.size")
    with pytest.raises(ConfigError, match="built without a size"):
        config.build(1, 2)
    sized = config.sized((64, 32))
    assert sized.image_size == (64, 32)
    assert sized.sized((32, 32)) is sized
    sized.check_size((64, 32), "patch.size")
    with pytest.raises(ConfigError) as caught:
        sized.check_size((64, 64), "patch.size")
    assert str(caught.value) == (
        "patch.size [64, 64] does not fit: network 'unetr' is built for image_size [64, 32] alone; nearest: [64, 32]"
    )
    assert validate(UNETRConfig, sized.model_dump(mode="json"), "golden") == sized
    assert config.fitted((33, 20)) == (48, 32)
    assert sized.fitted((33, 20)) == (64, 32)
    with pytest.raises(ConfigError, match=r"size \[33, 40\] does not fit in image_size \[64, 32\]"):
        sized.fitted((33, 40))


@pytest.mark.parametrize(
    ("settings", "content", "says"),
    [
        (UNetPlusPlusConfig, {"channels": [8, 8, 8, 8]}, "channels"),
        (UNetPlusPlusConfig, {"deep_supervision": 4}, "4 nodes of the finest row allow 0 to 3"),
        (UNetPlusPlusConfig, {"deep_supervision": True}, "deep_supervision"),
        (UNetPlusPlusConfig, {"channels": [8, 8, 1, 8, 8]}, "2 or more from the third stage on"),
        (UNetPlusPlusConfig, {"normalisation": "batch", "checkpointing": True}, "twice a step"),
        (VNetConfig, {"convs_down": [1, 2]}, "convs_up has 4 entries, but convs_down has 2"),
        (VNetConfig, {"activation": "gelu"}, "known: elu, prelu, relu"),
        (VNetConfig, {"dropout": 1.0}, "dropout"),
        (SegResNetConfig, {"width": 12}, "cannot be split in 8 groups"),
        (SegResNetConfig, {"blocks_up": [1, 1]}, "4 stages need 3"),
        (SegResNetConfig, {"deep_supervision": 3}, "4 stages allow 0 to 2"),
        (SegResNetConfig, {"deep_supervision": 1, "dropout": 0.2}, "set one of them to 0"),
        (SegResNetConfig, {"normalisation": "batch", "checkpointing": True}, "twice a step"),
        (MedNeXtConfig, {"blocks": [2, 2, 2]}, "expansions has 5 entries, but 3 stages need 3"),
        (MedNeXtConfig, {"deep_supervision": 5}, "5 stages allow 0 to 4"),
        (MedNeXtConfig, {"kernel_size": 4}, "kernel_size"),
        (UNETRConfig, {"heads": 5}, "heads 5 must divide hidden_size 768"),
        (UNETRConfig, {"image_size": [96, 96, 90]}, "image_size [96, 96, 90] does not fit"),
        (UNETRConfig, {"image_size": [96, 96]}, "works in 3D"),
    ],
)
def test_wrong_settings_are_refused_with_the_reason(settings: type[Any], content: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(settings, content, "experiment.yaml")
    assert says in str(caught.value)
