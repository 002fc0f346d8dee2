"""Contracts that every network of the catalogue keeps, in 2D and 3D, and the main variants of the U-Net too."""

from __future__ import annotations

import math
import subprocess
import sys
from typing import Any

import pytest
import torch

from medseg.config import validate
from medseg.errors import ConfigError
from medseg.networks import NETWORKS, NetworkConfig, UNetConfig

SMALL: dict[str, dict[str, Any]] = {
    "unet": {"channels": (8, 16, 32)},
    "attention_unet": {"channels": (8, 16, 32)},
    "swin_unetr": {"feature_size": 12, "depths": (1, 1, 1, 1)},
}
UNET_VARIANTS: dict[str, dict[str, Any]] = {
    "residual": {"residual": True},
    "classic": {"downsampling": "max_pool", "normalisation": "batch", "activation": "relu", "convs": 3},
    "added": {"downsampling": "average_pool", "upsampling": "interpolated", "skips": "add", "normalisation": "group"},
    "bare": {"skips": "none", "normalisation": "none", "activation": "gelu"},
    "residual_pooled": {"residual": True, "downsampling": "max_pool", "convs": 1, "activation": "prelu"},
    "supervised": {"channels": (8, 8, 16, 16), "deep_supervision": 2, "activation": "silu"},
    "checkpointed": {"checkpointing": True, "residual": True, "activation": "elu"},
}


def _configs(dims: int) -> list[Any]:
    listed = [
        (name, NETWORKS[name].model_validate({"spatial_dims": dims, **SMALL.get(name, {})}))
        for name in NETWORKS.names()
    ]
    listed += [
        (f"unet_{name}", UNetConfig(spatial_dims=dims, **{**SMALL["unet"], **choices}))
        for name, choices in UNET_VARIANTS.items()
    ]
    uneven: dict[str, Any] = {"strides": (2, (1, 2, 2)[:dims]), "kernel_sizes": (3, (1, 3, 5)[:dims], 3)}
    listed.append(("unet_anisotropic", UNetConfig(spatial_dims=dims, channels=(8, 16, 32), **uneven)))
    return [pytest.param(config, id=f"{name}_{dims}d") for name, config in listed]


CONFIGS = [*_configs(2), *_configs(3)]
every_network = pytest.mark.parametrize("config", CONFIGS)


def admissible(config: NetworkConfig, least: int = 8) -> tuple[int, ...]:
    """A small size that the network takes, longer along its first axis."""
    divisor = config.divisor()
    multiples = [max(math.ceil(least / step), 2 if axis == 0 else 1) for axis, step in enumerate(divisor)]
    return tuple(step * count for step, count in zip(divisor, multiples, strict=True))


def outputs(logits: torch.Tensor | list[torch.Tensor]) -> list[torch.Tensor]:
    return [logits] if isinstance(logits, torch.Tensor) else logits


@every_network
def test_logits_lie_on_the_grid_of_the_image(config: NetworkConfig) -> None:
    size = admissible(config)
    config.check_size(size, "patch_size")
    for in_channels, out_channels in ((1, 2), (3, 5)):
        network = config.build(in_channels, out_channels).eval()
        with torch.no_grad():
            assert network(torch.randn(2, in_channels, *size)).shape == (2, out_channels, *size)


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
    network = config.build(2, 3)
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
    torch.manual_seed(3)
    first = config.build(1, 2).eval()
    torch.manual_seed(3)
    again = config.build(1, 2).eval()
    torch.manual_seed(4)
    loaded = config.build(1, 2).eval()
    image = torch.randn(1, 1, *admissible(config))
    with torch.no_grad():
        expected = first(image)
        assert torch.equal(again(image), expected)
        assert not torch.equal(loaded(image), expected)
        loaded.load_state_dict(first.state_dict())
        assert torch.equal(loaded(image), expected)


@every_network
def test_evaluation_is_deterministic_and_a_tensor(config: NetworkConfig) -> None:
    dropped = type(config).model_validate({**config.model_dump(), "dropout": 0.5})
    image = torch.randn(2, 1, *admissible(config))
    network = dropped.build(1, 2)
    with torch.no_grad():
        noisy = [outputs(network(image))[0] for _ in range(2)]
        network.eval()
        calm = [network(image) for _ in range(2)]
    assert not torch.equal(*noisy)
    assert torch.equal(*calm)


@every_network
def test_config_survives_being_written_down(config: NetworkConfig) -> None:
    written = config.model_dump(mode="json")
    assert validate(type(config), written, "golden") == config
    assert written["name"] in NETWORKS.names()


def _overfit(config: NetworkConfig, steps: int) -> float:
    """Dice of the foreground after learning one ball in noise by heart."""
    torch.manual_seed(0)
    size = admissible(config, least=16)
    grid = torch.stack(torch.meshgrid(*(torch.arange(length) for length in size), indexing="ij")).float()
    centre = torch.tensor([length / 2 - 1 for length in size]).view(-1, *[1] * len(size))
    truth = ((grid - centre).square().sum(dim=0) < 30).long()[None]
    image = truth[None].float() + 0.5 * torch.randn(1, 1, *size)
    network = config.build(1, 2)
    optimiser = torch.optim.Adam(network.parameters(), lr=5e-3)
    for _ in range(steps):
        optimiser.zero_grad()
        logits = outputs(network(image))[0]
        torch.nn.functional.cross_entropy(logits, truth).backward()
        optimiser.step()
    found = logits.argmax(dim=1)
    return float(2 * (found * truth).sum() / (found.sum() + truth.sum()))


QUICK = {"unet_3d", "attention_unet_3d", *(str(one.id) for one in CONFIGS if str(one.id).endswith("_2d"))}
LEARNERS = [
    pytest.param(one.values[0], id=str(one.id), marks=[] if one.id in QUICK else [pytest.mark.slow]) for one in CONFIGS
]


@pytest.mark.parametrize("config", LEARNERS)
def test_a_small_phantom_is_learned_by_heart(config: NetworkConfig) -> None:
    assert _overfit(config, steps=60) > 0.95


def test_reading_the_configs_loads_neither_torch_nor_monai() -> None:
    code = (
        "import sys; from medseg.networks import NETWORKS; from medseg.losses import LOSSES;"
        "[entry for _, entry in [*NETWORKS, *LOSSES]]; NETWORKS['unet']().check_size((16, 8, 8), 'patch');"
        "sys.exit(' '.join({'torch', 'monai'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
