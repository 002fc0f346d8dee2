"""SETR against arithmetic: parameters, receptive field, positions, the decoder's doublings, and settings refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from medseg.config import validate
from medseg.errors import ConfigError
from medseg.networks import SETRConfig
from medseg.networks.transformers.setr_module import SETR, positions

TINY: dict[str, Any] = {"hidden_size": 24, "mlp_size": 40, "layers": 2, "heads": 2, "decoder_width": 16}


@pytest.mark.parametrize("patch", [4, (8, 8, 2)])
@pytest.mark.parametrize("dims", [2, 3])
def test_parameters_are_as_many_as_arithmetic_says(dims: int, patch: Any) -> None:
    config = SETRConfig.model_validate({"spatial_dims": dims, **TINY, "patch": patch if patch == 4 else patch[:dims]})
    h, m, w, layers, k = 24, 40, 16, 2, 3**dims
    voxels = math.prod(config.divisor())
    stages = 2 if patch == 4 else 3
    embedding = 3 * voxels * h + h
    transformer = layers * (4 * h**2 + 2 * h * m + 9 * h + m) + 2 * h
    decoder = k * h * w + (stages - 1) * k * w**2 + 2 * stages * w
    head = w * 5 + 5
    counted = sum(parameter.numel() for parameter in config.build(3, 5).parameters())
    assert counted == embedding + transformer + decoder + head


def test_the_paper_sized_encoder_has_a_vit_bases_weights() -> None:
    """86 M, as Dosovitskiy et al. count them (table 1), without their 197 learned positions and class token."""
    with torch.device("meta"):
        network = SETR(SETRConfig(spatial_dims=2), 3, 2)
    parts = [network.embedding, network.layers, network.norm]
    counted = sum(parameter.numel() for part in parts for parameter in part.parameters())
    assert counted == 85_798_656 - 198 * 768


@pytest.mark.parametrize("dims", [2, 3])
def test_every_token_sees_the_whole_image(dims: int) -> None:
    torch.manual_seed(0)
    config = SETRConfig.model_validate({"spatial_dims": dims, **TINY, "patch": 4, "layers": 1})
    network = SETR(config, 1, 2)
    image = torch.randn(1, 1, 16, *[12] * (dims - 1), requires_grad=True)
    network.encode(image)[0, 5][(0,) * dims].backward()
    assert image.grad is not None
    assert bool((image.grad != 0).all())


def test_positions_are_sines_of_each_axis_index() -> None:
    table = positions((3, 5), 8, torch.device("cpu")).view(3, 5, 8)  # 2 frequencies: 1 and 1 / 100
    for i, j in ((0, 0), (2, 1), (1, 4)):
        expected = [wave(x * f) for x in (i, j) for wave in (math.sin, math.cos) for f in (1, 0.01)]
        assert table[i, j].tolist() == pytest.approx(expected, abs=1e-6)


def test_a_grid_of_another_size_keeps_the_positions_of_the_tokens_it_shares() -> None:
    small, large = (positions((size, 4, 2), 12, torch.device("cpu")) for size in (3, 6))
    assert torch.equal(large.view(6, 4, 2, 12)[:3], small.view(3, 4, 2, 12))
    assert len(large.unique(dim=0)) == 6 * 4 * 2


def test_tokens_that_trade_places_are_told_apart() -> None:
    """Without positions, attention would give the same tokens in another order."""
    torch.manual_seed(0)
    network = SETR(SETRConfig.model_validate({"spatial_dims": 2, **TINY, "patch": 4}), 1, 2).eval()
    image = torch.randn(1, 1, 8, 8)
    with torch.no_grad():
        assert not torch.allclose(network.encode(image.flip(2).unflatten(2, (2, 4)).flip(3).flatten(2, 3)).flip(2),
                                  network.encode(image), atol=1e-3)  # fmt: skip


def test_axes_with_smaller_tokens_are_doubled_later() -> None:
    assert SETRConfig(patch=(16, 16, 4)).doublings() == [(2, 2, 1), (2, 2, 1), (2, 2, 2), (2, 2, 2)]
    assert SETRConfig(spatial_dims=2, patch=(1, 4)).doublings() == [(1, 2), (1, 2)]
    assert SETRConfig(patch=(16, 16, 4)).divisor() == (16, 16, 4)


def test_checkpointing_changes_no_gradient() -> None:
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        config = SETRConfig.model_validate({**TINY, "patch": 4, "dropout": 0.2, "checkpointing": checkpointing})
        network = config.build(1, 2)
        network(torch.randn(2, 1, 8, 12, 4)).square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert all(torch.equal(plain, recomputed) for plain, recomputed in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"patch": 12}, "patch [12, 12, 12] must be powers of 2"),
        ({"patch": 1}, "not all 1"),
        ({"patch": [4, 4]}, "give one number, or 3"),
        ({"heads": 7}, "heads 7 must divide hidden_size 768"),
        ({"hidden_size": 1024, "heads": 16}, "hidden_size 1024 must be a multiple of 6"),
        ({"normalisation": "group", "groups": 7}, "decoder_width 256 cannot be split in 7 groups"),
        ({"normalisation": "none"}, "normalisation"),
    ],
)
def test_wrong_settings_are_refused_with_the_reason(content: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(SETRConfig, content, "experiment.yaml")
    assert says in str(caught.value)
