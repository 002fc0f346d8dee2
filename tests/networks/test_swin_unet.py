"""Swin-Unet against arithmetic: parameters, patch expanding, windows on small grids, and settings that it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.networks.layers.drop_path import DropPath

from medseg.config import validate
from medseg.errors import ConfigError
from medseg.networks import SwinUNetConfig
from medseg.networks.transformers.swin_unet_module import PatchExpanding, SwinUNet

TINY: dict[str, Any] = {"width": 8, "patch": 2, "depths": (2, 2, 1), "heads": (1, 2, 4), "window": 4}


def _counted(config: SwinUNetConfig, in_channels: int, out_channels: int) -> int:
    with torch.device("meta"):
        network = config.build(in_channels, out_channels)
    return sum(parameter.numel() for parameter in network.parameters())


def _by_arithmetic(config: SwinUNetConfig, in_channels: int, out_channels: int) -> int:
    c, p, w = config.width, config.patch, config.window
    widths = [c * 2**i for i in range(len(config.depths))]
    blocks = [12 * d**2 + 13 * d + (2 * w - 1) ** 2 * h for d, h in zip(widths, config.heads, strict=True)]
    twice = [2 * depth for depth in config.depths[:-1]] + [config.depths[-1]]
    stages = sum(count * block for count, block in zip(twice, blocks, strict=True))
    merging = sum(8 * d**2 + 8 * d for d in widths[:-1])
    expanding = sum(8 * d**2 + 2 * d for d in widths[:-1])
    joining = sum(2 * d**2 + d for d in widths[:-1])
    ends = in_channels * p**2 * c + 3 * c + 2 * widths[-1] + 2 * c + p**2 * c**2 + 2 * c + c * out_channels
    return stages + merging + expanding + joining + ends


@pytest.mark.parametrize("settings", [{}, TINY, {**TINY, "depths": (1, 3, 2), "window": 7, "patch": 4}])
def test_parameters_are_as_many_as_arithmetic_says(settings: dict[str, Any]) -> None:
    config = SwinUNetConfig.model_validate(settings)
    assert _counted(config, 2, 5) == _by_arithmetic(config, 2, 5)


def test_the_papers_network_has_27_million_parameters() -> None:
    assert _counted(SwinUNetConfig(), 3, 9) == 27_168_900


def test_expanding_lays_each_token_out_in_rows_and_columns() -> None:
    """With the identity for a weight, token t holds its four descendants' channels one after the other."""
    expanding = PatchExpanding(8, 2, 2)
    torch.nn.init.eye_(expanding.expansion.weight)
    expanding.norm = torch.nn.Identity()  # type: ignore[assignment]
    tokens = torch.arange(2 * 3 * 8).view(1, 2, 3, 8).float()
    finer = expanding(tokens)
    assert finer.shape == (1, 4, 6, 2)
    for row in range(4):
        for column in range(6):
            child = 2 * (row % 2) + column % 2
            expected = tokens[0, row // 2, column // 2, 2 * child : 2 * child + 2]
            assert torch.equal(finer[0, row, column], expected)


@pytest.mark.parametrize(("blocks", "first", "end"), [(1, 4, 8), (2, 4, 12)])
def test_what_a_token_sees_grows_from_its_window_to_those_that_the_moved_one_meets(
    blocks: int, first: int, end: int
) -> None:
    """On 3 x 3 windows of 4 tokens: the token at 6 lies in window 4 to 7, then in the moved one from 6 to 9."""
    torch.manual_seed(0)
    network = SwinUNet(SwinUNetConfig.model_validate({**TINY, "depths": (blocks, 1, 1)}), 1, 2)
    tokens = torch.randn(1, 8, 12, 12, requires_grad=True)
    network.encoder[0](tokens)[0, 3, 6, 6].backward()
    assert tokens.grad is not None
    expected = torch.zeros(12, 12, dtype=torch.bool)
    expected[first:end, first:end] = True
    assert torch.equal((tokens.grad[0] != 0).any(dim=0), expected)


@pytest.mark.parametrize("size", [(8, 16), (24, 40), (64, 8)])
def test_windows_shrink_and_grids_are_padded(size: tuple[int, int]) -> None:
    """Token grids from 1 x 2 to 32 x 4, in windows of 4: smaller ones, equal ones, and such as 4 does not divide."""
    config = SwinUNetConfig.model_validate(TINY)
    config.check_size(size, "patch.size")
    torch.manual_seed(0)
    assert config.build(1, 3)(torch.randn(2, 1, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize("stage", [0, 1])
@pytest.mark.parametrize("part", [slice(None, 8), slice(-8, None)], ids=["from below", "from the skip"])
def test_what_is_joined_reaches_the_logits(stage: int, part: slice) -> None:
    torch.manual_seed(0)
    network, image = SwinUNet(SwinUNetConfig.model_validate(TINY), 1, 2).eval(), torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        whole = network(image)
        network.get_parameter(f"joins.{stage}.weight")[:, part] = 0
        assert not torch.allclose(network(image), whole)


@pytest.mark.parametrize("drop", [{"dropout": 0.2}, {"attention_dropout": 0.2, "drop_path": 0.3}])
def test_checkpointing_changes_no_gradient(drop: dict[str, float]) -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = SwinUNetConfig.model_validate({**TINY, **drop, "checkpointing": checkpointing}).build(1, 2)
        network(torch.randn(2, 1, 24, 16)).square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert all(torch.equal(plain, recomputed) for plain, recomputed in zip(*gradients, strict=True))


def test_stochastic_depth_grows_to_its_rate_at_the_bottleneck() -> None:
    network = SwinUNet(SwinUNetConfig.model_validate({**TINY, "drop_path": 0.4}), 1, 2)
    dropping = [module for module in network.encoder.modules() if isinstance(module, DropPath)]
    assert [one.drop_prob for one in dropping] == pytest.approx([0.1, 0.2, 0.3, 0.4])  # MONAI leaves out one of 0


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"spatial_dims": 3}, "spatial_dims"),
        ({"heads": [3, 6, 12]}, "heads has 3 entries, but 4 depths need 4"),
        ({"heads": [5, 6, 12, 24]}, "5 does not"),
        ({"depths": [2], "heads": [3]}, "depths"),
        ({"window": 1}, "window"),
    ],
)
def test_wrong_settings_are_refused_with_the_reason(content: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(SwinUNetConfig, content, "experiment.yaml")
    assert says in str(caught.value)
