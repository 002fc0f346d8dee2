"""Attention modules: contracts over the catalogue, answers by arithmetic or by MONAI, and the maps that they show."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.blocks.squeeze_and_excitation import ChannelSELayer
from monai.networks.nets.attentionunet import AttentionBlock
from torch import nn
from torch.nn import functional

from medseg.networks import AttentionUNetConfig, UNetConfig
from medseg.networks.attention import ATTENTIONS, CBAMConfig, GateConfig, SelfAttentionConfig, SqueezeExcitationConfig
from medseg.networks.attention.maps import AttentionMap, attention_maps, is_over_channels, markers, recorded
from medseg.networks.attention.self_attention_module import averaged, from_windows, to_windows

GRIDS: dict[int, list[tuple[int, ...]]] = {2: [(2, 1), (5, 7), (12, 9)], 3: [(2, 1, 1), (3, 5, 4), (9, 6, 11)]}
MODULES: list[tuple[str, dict[str, Any]]] = [(name, {}) for name in ATTENTIONS.names()]
MODULES += [("self_attention", {"extent": extent, "size": 3, "heads": 2}) for extent in ("pooled", "windowed", "whole")]
every_module = pytest.mark.parametrize(("name", "settings"), MODULES, ids=lambda part: str(part))
in_both = pytest.mark.parametrize("dims", [2, 3])


def built(name: str, settings: dict[str, Any], dims: int, width: int) -> Any:
    at = {} if name == "gate" else {"at": ["skip"]}
    return ATTENTIONS[name].model_validate({"name": name, **at, **settings}).build(dims, width)


def called(module: Any, name: str, features: torch.Tensor) -> torch.Tensor:
    result = module(features, features.flip(0) + 0.1) if name == "gate" else module(features)
    assert isinstance(result, torch.Tensor)
    return result


@every_module
@in_both
def test_any_grid_keeps_its_shape_and_gradients_reach_all_in_bf16(
    name: str, settings: dict[str, Any], dims: int
) -> None:
    torch.manual_seed(0)
    for grid in GRIDS[dims]:
        module, features = built(name, settings, dims, 12), torch.randn(2, 12, *grid, requires_grad=True)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = called(module, name, features)
        assert result.shape == features.shape
        (result.float() * torch.randn(result.shape)).sum().backward()
        for path, parameter in [*module.named_parameters(), ("features", features)]:
            assert parameter.grad is not None, path
            assert parameter.grad.isfinite().all(), path
            assert parameter.grad.abs().sum() > 0, path


@every_module
@in_both
def test_maps_are_weights_of_places_or_channels(name: str, settings: dict[str, Any], dims: int) -> None:
    for grid in GRIDS[dims]:
        module, features = built(name, settings, dims, 12), torch.randn(2, 12, *grid)
        for title, marker in module.named_modules():
            if isinstance(marker, AttentionMap):
                marker.title = title
        with recorded(module) as found:
            called(module, name, features)
        assert set(found) == ({"channel.map", "spatial.map"} if name == "cbam" else {"map"})
        for made in found.values():
            assert made.shape[0] == 2
            assert made.shape[1:] == ((12, *[1] * dims) if is_over_channels(made) else (1, *made.shape[2:]))
            assert (made >= 0).all()
            if name == "self_attention":
                torch.testing.assert_close(made.mean(dim=tuple(range(1, made.ndim))), torch.ones(2))
            else:
                assert (made < 1).all()


PARAMETERS = {
    "squeeze_excitation": lambda dims: 2 * 8 * 64 + 8 + 64,
    "spatial": lambda dims: 2 * 7**dims + 1,
    "cbam": lambda dims: 2 * 8 * 64 + 8 + 64 + 2 * 7**dims + 1,
    "self_attention": lambda dims: 4 * 64 * 32,
    "gate": lambda dims: 2 * 32 * 64 + 2 * 32 + 1,
}


@pytest.mark.parametrize("name", ATTENTIONS.names())
@in_both
def test_parameters_are_as_many_as_arithmetic_says(name: str, dims: int) -> None:
    module = built(name, {}, dims, 64)
    assert sum(parameter.numel() for parameter in module.parameters()) == PARAMETERS[name](dims)


@in_both
def test_squeeze_and_excitation_equals_monais(dims: int) -> None:
    ours: Any = SqueezeExcitationConfig(at=("encoder",), reduction=2).build(dims, 16)
    theirs: Any = ChannelSELayer(dims, 16, r=2, acti_type_1=("leakyrelu", {"negative_slope": 0.01}))
    for source, target in ((ours.squeeze, theirs.fc[0]), (ours.excite, theirs.fc[2])):
        target.load_state_dict(source.state_dict())
    features = torch.randn(2, 16, *(6, 4, 5)[:dims])
    torch.testing.assert_close(ours(features), theirs(features))


@in_both
def test_gate_equals_monais_without_its_norms(dims: int) -> None:
    torch.manual_seed(0)
    ours: Any = GateConfig().build(dims, 8)
    theirs: Any = AttentionBlock(dims, f_int=4, f_g=8, f_l=8)
    theirs.eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            module.eps = 0.0  # mean 0, variance 1, scale 1, shift 0: nothing is left of it
    theirs.W_x[0].conv.weight.data, theirs.W_x[0].conv.bias.data = ours.of_skip.weight.data, torch.zeros(4)
    theirs.W_g[0].conv.load_state_dict(ours.of_coarser.state_dict())
    theirs.psi[0].conv.load_state_dict(ours.score.state_dict())
    skip, coarser = torch.randn(2, 2, 8, *(6, 4, 5)[:dims])
    torch.testing.assert_close(ours(skip, coarser), theirs(g=coarser, x=skip))


def test_cbam_equals_the_papers_formula_in_float64() -> None:
    torch.manual_seed(0)
    module = CBAMConfig(at=("skip",), kernel_size=3).build(2, 4).double()
    image = torch.randn(1, 4, 5, 6, dtype=torch.float64)
    x = image.numpy()[0]
    state = {name: value.numpy() for name, value in module.state_dict().items()}

    def score(summary: np.ndarray) -> np.ndarray:
        hidden = state["channel.squeeze.weight"] @ summary + state["channel.squeeze.bias"]
        return (
            state["channel.excite.weight"] @ np.where(hidden > 0, hidden, 0.01 * hidden) + state["channel.excite.bias"]
        )

    x = x / (1 + np.exp(-(score(x.mean(axis=(1, 2))) + score(x.max(axis=(1, 2))))))[:, None, None]
    padded = np.pad(np.stack([x.mean(axis=0), x.max(axis=0)]), ((0, 0), (1, 1), (1, 1)))
    kernel, where = state["spatial.score.weight"][0], np.zeros((5, 6))
    for row in range(5):
        for column in range(6):
            where[row, column] = (kernel * padded[:, row : row + 3, column : column + 3]).sum()
    expected = x / (1 + np.exp(-(where + state["spatial.score.bias"])))
    np.testing.assert_allclose(module(image).detach().numpy()[0], expected, rtol=1e-10)


def _attended(module: Any, features: torch.Tensor, source: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Self-attention of one head as its formula says, and the attention that each position of the source receives."""
    query, key, value = (
        part(one).flatten(2)[0]
        for part, one in zip((module.queries, module.keys, module.values), (features, source, source), strict=True)
    )
    shares = torch.softmax(query.T @ key / math.sqrt(len(query)), dim=1)
    attended = (value @ shares.T).reshape(1, -1, *features.shape[2:])
    return features + module.projection(attended), shares.mean(dim=0) * shares.shape[1]


@pytest.mark.parametrize("extent", ["whole", "pooled"])
@in_both
def test_self_attention_equals_its_formula(extent: Any, dims: int) -> None:
    module = SelfAttentionConfig(at=("skip",), extent=extent, size=3).build(dims, 10)
    features = torch.randn(1, 10, *(7, 4, 3)[:dims])
    pool: Any = (functional.adaptive_avg_pool2d, functional.adaptive_avg_pool3d)[dims - 2]
    source = pool(features, 3) if extent == "pooled" else features
    expected, received = _attended(module, features, source)
    with recorded(module) as found:
        torch.testing.assert_close(module(features), expected)
    torch.testing.assert_close(found[""].flatten(), received)


@in_both
def test_windowed_attention_is_that_of_each_window_alone(dims: int) -> None:
    """An axis of 7 in windows of 4 at most is one of 4 and one of 3; an axis of 5 in windows of 3 and 2."""
    module = SelfAttentionConfig(at=("skip",), extent="windowed", size=4).build(dims, 10)
    features = torch.randn(1, 10, 7, *[5] * (dims - 1))
    expected, received = torch.zeros_like(features), torch.zeros(1, 1, *features.shape[2:])
    cuts = [(slice(0, 4), slice(4, 7)), *[(slice(0, 3), slice(3, 5))] * (dims - 1)]
    for chosen in np.ndindex(*[2] * dims):
        here: Any = (..., *(pair[one] for pair, one in zip(cuts, chosen, strict=True)))
        expected[here], shares = _attended(module, features[here], features[here])
        received[here] = shares.reshape(received[here].shape)
    with recorded(module) as found:
        torch.testing.assert_close(module(features), expected)
    torch.testing.assert_close(found[""], received)


@pytest.mark.parametrize("grid", [(7, 5), (6, 4, 9)])
def test_windows_come_back_in_place(grid: tuple[int, ...]) -> None:
    features = torch.randn(2, 3, *grid)
    counts = tuple(-(-length // 4) for length in grid)
    window = tuple(-(-length // count) for length, count in zip(grid, counts, strict=True))
    windows = to_windows(features, counts, window)
    first = features[0]
    for axis, length in enumerate(window, start=1):
        first = first.narrow(axis, 0, length)
    assert torch.equal(windows[0], first)
    assert torch.equal(from_windows(windows, counts, grid), features)


@in_both
def test_averages_are_those_of_adaptive_pooling(dims: int) -> None:
    features = torch.randn(2, 3, *(11, 4, 16)[:dims])
    pool: Any = (functional.adaptive_avg_pool2d, functional.adaptive_avg_pool3d)[dims - 2]
    expected = pool(features, (5, 4, 5)[:dims])
    torch.testing.assert_close(averaged(features, 5), expected)


@pytest.mark.parametrize("extent", ["pooled", "windowed", "whole"])
@in_both
def test_the_map_is_counted_in_float32_under_autocast(extent: Any, dims: int) -> None:
    """By the formula on the queries and keys that bf16 left; products in bf16 would be off by a hundred times more."""
    torch.manual_seed(0)
    module: Any = SelfAttentionConfig(at=("skip",), extent=extent, size=8).build(dims, 10)
    asked: list[torch.Tensor] = []
    for part in (module.queries, module.keys):
        part.register_forward_hook(lambda _module, _given, made: asked.append(made.float().flatten(2)[0]))
    with torch.autocast("cpu", dtype=torch.bfloat16), recorded(module) as found:
        module(torch.randn(1, 10, *(7, 4, 3)[:dims]))  # one window, not pooled: all positions see all
    query, key = asked
    shares = torch.softmax(query.T @ key / math.sqrt(len(query)), dim=1)
    torch.testing.assert_close(found[""].flatten(), shares.mean(dim=0) * shares.shape[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("extent", ["pooled", "windowed"])
def test_a_large_grid_needs_little_memory(extent: Any) -> None:
    """All products of 64^3 positions at once would be 256 GiB."""
    module = SelfAttentionConfig(at=("encoder",), extent=extent, size=4).build(3, 2)
    with torch.no_grad(), recorded(module) as found:
        assert module(torch.randn(1, 2, 64, 64, 64)).isfinite().all()
    assert found[""].isfinite().all()


def test_weights_beside_attention_are_those_of_the_network_without() -> None:
    states = []
    for attention in ((), tuple(ATTENTIONS[name].model_validate({"at": ["skip"]}) for name in ATTENTIONS.names())):
        torch.manual_seed(7)
        states.append(UNetConfig(channels=(4, 8, 8), attention=attention).build(1, 2).state_dict())
    plain, attended = states
    assert len(attended) > len(plain)
    assert all(torch.equal(attended[name], value) for name, value in plain.items())


@in_both
def test_maps_of_a_network_are_named_after_their_places_and_lie_on_the_image(dims: int) -> None:
    attention: list[Any] = [
        {"name": "cbam", "at": ["encoder", "skip"]},
        {"name": "self_attention", "at": ["bottleneck"]},
        {"name": "spatial", "at": ["decoder"]},
        {"name": "gate"},
    ]
    config = UNetConfig.model_validate({"spatial_dims": dims, "channels": (8, 16, 24), "attention": attention})
    network, image = config.build(1, 2), torch.randn(2, 1, *(16, 8, 12)[:dims])
    found = attention_maps(network, image)
    both = [
        f"{place}.{stage}.cbam.{part}"
        for place in ("encoder", "skip")
        for stage in (0, 1)
        for part in ("channel", "spatial")
    ]
    others = ["bottleneck.self_attention", "decoder.0.spatial", "decoder.1.spatial", "skip.0.gate", "skip.1.gate"]
    assert set(found) == set(markers(network)) == {*both, *others}
    for title, made in found.items():
        width = (8, 16)[int(title.split(".")[1])] if "channel" in title else 1
        assert made.shape == (2, width, *([1] * dims if "channel" in title else image.shape[2:]))
    assert not any(marker.is_recorded for marker in markers(network).values())
    assert network.training


@in_both
def test_the_map_of_a_gate_is_what_it_lets_through(dims: int) -> None:
    """A gate that asks the first channel of the skip alone: the map is 1/2 where it is 0, sigmoid(w x) elsewhere."""
    gate: Any = GateConfig().build(dims, 2)
    for parameter in gate.parameters():
        nn.init.zeros_(parameter)
    gate.of_skip.weight.data[0, 0], gate.score.weight.data[:] = 1.0, 3.0
    skip = torch.zeros(1, 2, *[4] * dims)
    skip[:, 0, :2], skip[:, 1] = 2.0, 5.0
    with recorded(gate) as found:
        passed = gate(skip, torch.randn(skip.shape))
    low, high = 0.5, 1 / (1 + math.exp(-6.0))
    expected = torch.full_like(found[""], low)
    expected[:, :, :2] = high
    torch.testing.assert_close(found[""], expected)
    torch.testing.assert_close(passed[:, 1:], 5 * expected)


@in_both
def test_monais_attention_unet_shows_its_gates(dims: int) -> None:
    network = AttentionUNetConfig(spatial_dims=dims, channels=(4, 8, 8)).build(1, 2).eval()
    seen: list[torch.Tensor] = []
    for module in network.modules():
        if isinstance(module, AttentionBlock):
            module.psi[2].register_forward_hook(lambda _module, _given, made: seen.append(made))
    image = torch.randn(1, 1, *[16] * dims)
    found = attention_maps(network, image)
    assert list(found) == ["skip.1.gate", "skip.0.gate"]  # as the network comes to them
    assert [tuple(made.shape[2:]) for made in seen] == [(8,) * dims, (16,) * dims]
    assert torch.equal(found["skip.0.gate"], seen[1])
    assert found["skip.1.gate"].shape == (1, 1, *[16] * dims)
    torch.testing.assert_close(found["skip.1.gate"].mean(), seen[0].mean(), rtol=0.1, atol=0.01)


def test_networks_without_attention_show_no_map() -> None:
    assert attention_maps(UNetConfig(channels=(4, 8)).build(1, 2), torch.randn(1, 1, 8, 8, 8)) == {}


def test_torch_compile_takes_every_module_in_one_graph() -> None:
    attention: list[Any] = [{"name": name, "at": ["skip"]} for name in ATTENTIONS.names()]
    attention.append({"name": "self_attention", "at": ["bottleneck"], "extent": "windowed", "size": 3})
    config = UNetConfig.model_validate({"spatial_dims": 2, "channels": (8, 16), "convs": 1, "attention": attention})
    network, image = config.build(1, 2), torch.randn(1, 1, 16, 10)
    torch.compiler.reset()
    compiled = torch.compile(network, backend="aot_eager", fullgraph=True)
    compiled(image).square().mean().backward()
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(image), network(image), rtol=1e-3, atol=1e-4)
