"""Contracts that every network of the catalogue keeps, in 2D and 3D, and the main variants of the U-Net too."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from medseg.config import validate
from medseg.errors import ConfigError
from medseg.networks import NETWORKS, NetworkConfig, UNetConfig

SMALL: dict[str, dict[Any, Any]] = {
    "unet": {"channels": (8, 16, 32)},
    "residual_encoder_unet": {"channels": (8, 16, 32), "blocks": (1, 1, 1), "deep_supervision": 1},
    "attention_unet": {"channels": (8, 16, 32)},
    "swin_unetr": {"feature_size": 12, "depths": (1, 1, 1, 1)},
    "unet_plus_plus": {"channels": (4, 4, 8, 8, 8), "last_channels": 4},
    "vnet": {"width": 4, "convs_down": (1, 1), "convs_up": (1, 1)},
    "segresnet": {"width": 8, "blocks_down": (1, 1, 1)},
    "mednext": {"width": 8, "blocks": (1, 1, 1), "expansions": (2, 2, 2)},
    "unetr": {"feature_size": 8, "hidden_size": 24, "mlp_size": 48, "heads": 2},
    "setr": {"patch": 4, "hidden_size": 24, "mlp_size": 48, "layers": 2, "heads": 2, "decoder_width": 16},
    "swin_unet": {"width": 12, "patch": 2, "depths": (1, 2, 1), "heads": (1, 2, 2), "window": 4},
    "fcn": {"channels": (4, 8, 8, 16, 16), "convs": (1, 1, 1, 1, 1), "classifier_width": 16, "classifier_kernel": 3},
    "deeplabv3plus": {
        2: {"encoder": "tu-lcnet_050", "width": 32, "output_stride": 8},
        3: {
            "channels": (8, 16, 16),
            "blocks": (1, 1, 1),
            "output_stride": 8,
            "rates": (1, 2, 3),
            "width": 16,
            "low_level_width": 8,
            "groups": 4,
        },
    },
    "pspnet": {
        2: {"encoder": "tu-lcnet_050", "width": 32},
        3: {"channels": (8, 16, 16), "blocks": (1, 1, 1), "width": 16, "groups": 4},
    },
    "segformer": {
        2: {"width": 32},
        3: {"channels": (8, 16), "depths": (1, 1), "heads": (1, 2), "reductions": (2, 1), "width": 16},
    },
    "hrnet": {"encoder": "tu-hrnet_w18_small"},
    "smp": {"encoder": "tu-lcnet_050"},
}
UNET_VARIANTS: dict[str, dict[str, Any]] = {
    "residual": {"residual": True},
    "classic": {"downsampling": "max_pool", "normalisation": "batch", "activation": "relu", "convs": 3},
    "added": {"downsampling": "average_pool", "upsampling": "interpolated", "skips": "add", "normalisation": "group"},
    "bare": {"skips": "none", "normalisation": "none", "activation": "gelu"},
    "residual_pooled": {"residual": True, "downsampling": "max_pool", "convs": 1, "activation": "prelu"},
    "supervised": {"channels": (8, 8, 16, 16), "deep_supervision": 2, "activation": "silu"},
    "checkpointed": {"checkpointing": True, "residual": True, "activation": "elu"},
    "squeezed": {"attention": [{"name": "squeeze_excitation", "at": ["encoder", "bottleneck", "decoder"]}]},
    "block_attentive": {"attention": [{"name": "cbam", "at": ["encoder", "bottleneck", "decoder", "skip"]}]},
    "gated": {"attention": [{"name": "spatial", "at": ["skip", "decoder"], "kernel_size": 3}, {"name": "gate"}]},
    "self_attentive": {"attention": [{"name": "self_attention", "at": ["bottleneck", "decoder"], "size": 4}]},
    "windowed": {"attention": [{"name": "self_attention", "at": ["encoder", "skip"], "extent": "windowed", "size": 3}]},
}


def _small(name: str, dims: int) -> NetworkConfig:
    """A catalogue entry, narrow enough for a test; settings that exist in one dimensionality only stand under it."""
    chosen = SMALL.get(name, {})
    settings = chosen.get(dims, chosen) if {2, 3} & set(chosen) else chosen
    config = NETWORKS[name].model_validate({"spatial_dims": dims, **settings})
    assert isinstance(config, NetworkConfig)
    return config


def _configs(dims: int) -> list[Any]:
    listed: list[tuple[str, NetworkConfig]] = [
        (name, _small(name, dims))
        for name, entry in NETWORKS
        if issubclass(entry, NetworkConfig) and dims in entry.dims()
    ]
    listed += [
        (f"unet_{name}", UNetConfig(spatial_dims=dims, **{**SMALL["unet"], **choices}))
        for name, choices in UNET_VARIANTS.items()
    ]
    uneven: dict[str, Any] = {"strides": (2, (1, 2, 2)[:dims]), "kernel_sizes": (3, (1, 3, 5)[:dims], 3)}
    listed.append(("unet_anisotropic", UNetConfig(spatial_dims=dims, channels=(8, 16, 32), **uneven)))
    return [pytest.param(config, id=f"{name}_{dims}d", marks=_needs(config)) for name, config in listed]


def _needs(config: NetworkConfig) -> list[pytest.MarkDecorator]:
    """Skips a network whose extra is not installed, saying so."""
    extra = config.extras.get(config.spatial_dims)
    if extra is None:
        return []
    return [pytest.mark.skipif(not extra.is_installed(), reason=f"needs the extra {extra.name!r}")]


CONFIGS = [*_configs(2), *_configs(3)]
every_network = pytest.mark.parametrize("config", CONFIGS)


def admissible(config: NetworkConfig, least: int = 8, strides: int = 1) -> tuple[int, ...]:
    """A small size that the network takes, of as many divisors or more an axis, longer along its first one."""
    counts = [max(math.ceil(least / step), strides) for step in config.divisor()]
    counts[0] = max(counts[0], 2)
    return tuple(step * count for step, count in zip(config.divisor(), counts, strict=True))


def build(config: NetworkConfig, size: tuple[int, ...], in_channels: int, out_channels: int) -> nn.Module:
    return config.sized(size).build(in_channels, out_channels)


def outputs(logits: torch.Tensor | list[torch.Tensor]) -> list[torch.Tensor]:
    return [logits] if isinstance(logits, torch.Tensor) else logits


@every_network
def test_logits_lie_on_the_grid_of_the_image(config: NetworkConfig) -> None:
    uneven = admissible(config)  # 2 divisors along the first axis, then odd multiples
    for size, in_channels, out_channels in ((uneven, 1, 2), (uneven, 4, 5), (admissible(config, strides=3), 3, 2)):
        config.sized(size).check_size(size, "patch_size")
        network = build(config, size, in_channels, out_channels).eval()
        with torch.no_grad():
            assert network(torch.randn(1, in_channels, *size)).shape == (1, out_channels, *size)


@every_network
def test_inadmissible_sizes_are_refused_and_the_named_ones_work(config: NetworkConfig) -> None:
    size = [*admissible(config)[:-1], admissible(config)[-1] + 1]
    if config.divisor()[-1] == 1:
        size = [admissible(config)[0] + 1, *admissible(config)[1:]]
    with pytest.raises(ConfigError, match="nearest") as caught:
        config.check_size(size, "data.patch_size")
    assert str(caught.value).startswith(f"data.patch_size {size}")
    assert repr(config.name) in str(caught.value)
    named = str(caught.value).split("nearest: ")[1].split(" or ")
    for text in named:
        config.check_size([int(number) for number in text.strip("[]").split(",")], "patch_size")


@every_network
def test_the_fitted_size_is_the_smallest_admissible_that_holds_the_wanted(config: NetworkConfig) -> None:
    size = admissible(config)
    assert config.fitted(size) == size
    assert config.fitted([size[0] - 1, *size[1:]]) == size
    larger = (*size[:-1], size[-1] + config.divisor()[-1])
    assert config.fitted([*size[:-1], size[-1] + 1]) == larger
    config.check_size(config.fitted([1] * len(size)), "patch_size")
    assert math.prod(config.fitted([1] * len(size))) == 2 * math.prod(config.divisor())
    with pytest.raises(ConfigError, match=f"works in {config.spatial_dims}D"):
        config.fitted((*size, 32))


@every_network
def test_one_voxel_at_the_coarsest_stage_is_refused(config: NetworkConfig) -> None:
    with pytest.raises(ConfigError, match="single voxel"):
        config.check_size(config.divisor(), "patch_size")


@every_network
def test_wrong_number_of_axes_is_refused(config: NetworkConfig) -> None:
    with pytest.raises(ConfigError, match=f"works in {config.spatial_dims}D"):
        config.check_size((*admissible(config), 32), "patch_size")


@every_network
def test_gradient_reaches_every_parameter_in_bf16(config: NetworkConfig) -> None:
    torch.manual_seed(0)
    network = build(config, admissible(config), 2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = outputs(network(torch.randn(2, 2, *admissible(config))))
    torch.stack([one.float().softmax(dim=1)[:, 0].square().mean() for one in logits]).sum().backward()
    assert all(one.isfinite().all() for one in logits)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@every_network
def test_weights_depend_on_the_seed_alone_and_survive_a_round_trip(config: NetworkConfig) -> None:
    size = admissible(config)
    torch.manual_seed(3)
    first = build(config, size, 1, 2).eval()
    torch.manual_seed(3)
    again = build(config, size, 1, 2).eval()
    torch.manual_seed(4)
    loaded = build(config, size, 1, 2).eval()
    image = torch.randn(1, 1, *size)
    with torch.no_grad():
        expected = first(image)
        assert torch.equal(again(image), expected)
        assert not torch.equal(loaded(image), expected)
        loaded.load_state_dict(first.state_dict())
        assert torch.equal(loaded(image), expected)


@every_network
def test_evaluation_is_deterministic_and_a_tensor(config: NetworkConfig) -> None:
    """The same image twice, after a training step on a batch of one has moved whatever moves; dropout rests."""
    torch.manual_seed(0)
    drops = "dropout" in type(config).model_fields
    dropped = type(config).model_validate({**config.model_dump(), **({"dropout": 0.2} if drops else {})})
    size = admissible(config)
    image, network = torch.randn(1, 1, *size), build(dropped, size, 1, 2)
    with torch.no_grad():
        noisy = [outputs(network(image))[0] for _ in range(2)]
        network.eval()
        calm = [network(image) for _ in range(2)]
    assert all(one.isfinite().all() for one in noisy)
    assert not drops or not torch.equal(*noisy)
    assert torch.equal(*calm)


@every_network
def test_config_survives_being_written_down(config: NetworkConfig) -> None:
    written = config.model_dump(mode="json")
    assert validate(type(config), written, "golden") == config
    assert written["name"] in NETWORKS.names()


PHANTOM_SIZES = {"pspnet": 32}  # its logits lie at every eighth voxel: a ball in 24 voxels is 3 of them wide


def _learned(config: NetworkConfig, steps: int) -> float:
    """Dice of the foreground after learning a ball in noise by heart; stops where that is done."""
    torch.manual_seed(0)
    size = admissible(config, least=PHANTOM_SIZES.get(config.name, 16), strides=3)
    grid = torch.stack(torch.meshgrid(*(torch.arange(length) for length in size), indexing="ij")).float()
    centre = torch.tensor([length / 2 - 1 for length in size]).view(-1, *[1] * len(size))
    truth = ((grid - centre).norm(dim=0) < 0.35 * min(size)).long()[None]
    image = truth[None].float() + 0.25 * torch.randn(1, 1, *size)
    network = build(config, size, 1, 2)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    dice = 0.0
    for _ in range(steps):
        optimiser.zero_grad()
        logits = outputs(network(image))[0]
        torch.nn.functional.cross_entropy(logits, truth).backward()
        optimiser.step()
        found = logits.detach().argmax(dim=1)
        dice = float(2 * (found * truth).sum() / (found.sum() + truth.sum()))
        if dice > 0.95:
            break
    return dice


@every_network
def test_a_phantom_of_three_strides_is_learned_by_heart(config: NetworkConfig) -> None:
    assert _learned(config, steps=60) > 0.95


LISTED = [one for one in CONFIGS if str(one.id).removesuffix("_2d").removesuffix("_3d") in NETWORKS.names()]


@pytest.mark.parametrize("config", LISTED)
def test_torch_compile_takes_it_in_one_graph(config: NetworkConfig) -> None:
    """Traced ahead of time, backward pass included, without the C++ of the last stage; or its config says that not."""
    size = admissible(config)
    network = build(config, size, 1, 2)
    torch.compiler.reset()  # what was traced for other networks of the same code counts against a limit
    compiled = torch.compile(network, backend="aot_eager", fullgraph=config.compiles)
    image = torch.randn(2, 1, *size)
    if not config.compiles:
        with pytest.raises(torch._dynamo.exc.Unsupported):
            torch.compile(network, backend="aot_eager", fullgraph=True)(image)
    torch.stack([one.square().mean() for one in outputs(compiled(image))]).sum().backward()
    network.eval()
    with torch.no_grad():
        torch.testing.assert_close(compiled(image), network(image), rtol=1e-3, atol=1e-4)


def test_reading_the_configs_loads_neither_torch_nor_monai() -> None:
    code = (
        "import sys; from medseg.networks import NETWORKS; from medseg.losses import LOSSES;"
        "[entry for _, entry in [*NETWORKS, *LOSSES]]; NETWORKS['unet']().check_size((16, 8, 8), 'patch');"
        "sys.exit(' '.join({'torch', 'monai'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
