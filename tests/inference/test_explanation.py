"""Explanations of networks whose attention is known by arithmetic: every weight must lie where it was given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from medseg.data.patches import PatchSettings
from medseg.data.preprocessing import Preprocessing
from medseg.errors import ConfigError
from medseg.geometry import Geometry
from medseg.inference.explanation import explain, require_attention
from medseg.inference.predictor import Predictor
from medseg.inference.settings import InferenceSettings
from medseg.labels import Label, LabelSet
from medseg.networks import AttentionUNetConfig, UNetConfig
from medseg.volume import Volume

LABELS = LabelSet(labels=(Label(name="half", value=1),))
LOW, HIGH = 1 / (1 + np.exp(2.0)), 1 / (1 + np.exp(-2.0))


def lit(dims: int, attention: list[dict[str, Any]]) -> nn.Module:
    """A U-Net of pointwise convolutions whose first skip holds the image; its gate opens where that is 1.

    The gate's score is 4 relu(image) - 2, so that the map is sigmoid(-2) where the image is 0 and sigmoid(2) where 1.
    """
    config = UNetConfig.model_validate(
        {
            "spatial_dims": dims,
            "channels": (2, 4),
            "convs": 1,
            "kernel_sizes": (1, 1),
            "normalisation": "none",
            "activation": "relu",
            "attention": attention,
        }
    )
    network: Any = config.build(1, LABELS.channels)
    nn.init.ones_(network.encoder[0].body[0].weight)
    gate = network.skip_attention[0][0]
    for parameter in gate.parameters():
        nn.init.zeros_(parameter)
    with torch.no_grad():
        gate.of_skip.weight[0, 0] = 1.0
        gate.score.weight[0, 0], gate.score.bias[0] = 4.0, -2.0
    assert isinstance(network, nn.Module)
    return network


def halves(shape: tuple[int, ...], affine: np.ndarray | None = None) -> Volume:
    """1 in the first half along axis 0, 0 in the second."""
    array = np.zeros((1, *shape), np.float32)
    array[:, : shape[0] // 2] = 1.0
    unit: Any = "mm" if len(shape) == 3 else "px"
    return Volume(array, Geometry(shape, np.eye(len(shape) + 1) if affine is None else affine, unit))


def predictor(network: nn.Module, patch: PatchSettings, dims: int, **settings: object) -> Predictor:
    plain = Preprocessing(intensity=()) if dims == 3 else Preprocessing(intensity=(), orientation=None)
    chosen = InferenceSettings.model_validate({"precision": "fp32", **settings})
    return Predictor(network, LABELS, plain, patch, chosen)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("settings", [{}, {"overlap": 0.25, "window_batch": 3, "flips": (0, 1)}])
def test_a_gate_lights_the_half_that_it_was_made_for(dims: int, settings: dict[str, Any]) -> None:
    image = halves((22, 9, 13)[:dims])
    network = lit(dims, [{"name": "gate"}])
    found = explain(predictor(network, PatchSettings(size=(8,) * dims), dims, **settings), image, "a model")
    [(title, weights)] = found.volumes()
    assert title == "skip.0.gate"
    assert weights.geometry is image.geometry
    assert weights.provenance.made_by == "a model"
    np.testing.assert_allclose(weights.array, np.where(image.array == 1, HIGH, LOW), atol=1e-5)
    assert found.channels == {}


@pytest.mark.parametrize("directions", [np.diag([-1, 1, 2.0]), np.eye(3)[[2, 0, 1]], -np.eye(3)[[1, 2, 0]]])
def test_weights_come_back_in_place_on_any_grid(directions: np.ndarray) -> None:
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = directions, (-20, 7, 3)
    image = halves((12, 9, 10), affine)
    found = explain(predictor(lit(3, [{"name": "gate"}]), PatchSettings(size=(8, 8, 8)), 3), image)
    [(_, weights)] = found.volumes()
    np.testing.assert_allclose(weights.array, np.where(image.array == 1, HIGH, LOW), atol=1e-5)


def test_slices_of_a_volume_are_explained_slice_by_slice() -> None:
    image = halves((12, 9, 5))
    patch = PatchSettings(size=(8, 8), slice_axis=2)
    [(_, weights)] = explain(predictor(lit(2, [{"name": "gate"}]), patch, 3), image).volumes()
    np.testing.assert_allclose(weights.array, np.where(image.array == 1, HIGH, LOW), atol=1e-5)


def test_weights_of_channels_are_averaged_over_windows() -> None:
    """Excitation by its bias alone: sigmoid(0) for the first channel, sigmoid(2) for the second, in every window."""
    network: Any = lit(2, [{"name": "gate"}, {"name": "squeeze_excitation", "at": ["decoder"]}])
    excite = network.decoder_attention[0][0].excite
    nn.init.zeros_(excite.weight)
    excite.bias.data = torch.tensor([0.0, 2.0])
    found = explain(predictor(network, PatchSettings(size=(8, 8)), 2, flips=(0,)), halves((22, 9)))
    assert list(found.channels) == ["decoder.0.squeeze_excitation"]
    np.testing.assert_allclose(found.channels["decoder.0.squeeze_excitation"], [0.5, HIGH], atol=1e-6)
    assert [title for title, _ in found.volumes()] == ["skip.0.gate"]


def test_a_network_that_weighs_channels_only_has_no_map_over_places() -> None:
    module = {"name": "squeeze_excitation", "at": ["encoder"]}
    network = UNetConfig.model_validate({"spatial_dims": 2, "channels": (4, 8), "attention": [module]}).build(1, 2)
    found = explain(predictor(network, PatchSettings(size=(8, 8)), 2), halves((22, 9)))
    assert list(found.volumes()) == []
    assert [len(weights) for weights in found.channels.values()] == [4]


def test_an_even_share_of_self_attention_is_one_everywhere() -> None:
    network: Any = UNetConfig.model_validate(
        {"channels": (4, 8), "attention": [{"name": "self_attention", "at": ["bottleneck", "skip"]}]}
    ).build(1, LABELS.channels)
    for module in (network.encoder_attention[-1][0], network.skip_attention[0][0]):
        nn.init.zeros_(module.queries.weight)
    found = explain(predictor(network, PatchSettings(size=(16, 8, 8)), 3), halves((22, 9, 13)))
    shares = dict(found.volumes())
    assert set(shares) == {"bottleneck.self_attention", "skip.0.self_attention"}
    for weights in shares.values():
        np.testing.assert_allclose(weights.array, 1.0, atol=1e-5)


def test_the_network_is_left_as_it_was() -> None:
    network = AttentionUNetConfig(spatial_dims=2, channels=(4, 8, 8)).build(1, LABELS.channels)
    image, sliding = halves((22, 9)), predictor(network, PatchSettings(size=(8, 8)), 2)
    before = sliding.logits(image.array)
    assert {title for title, _ in explain(sliding, image).volumes()} == {"skip.0.gate", "skip.1.gate"}
    assert np.array_equal(sliding.logits(image.array), before)


def test_a_network_without_attention_is_refused_with_those_that_have_it() -> None:
    with pytest.raises(ConfigError) as caught:
        require_attention(UNetConfig(channels=(4, 8)).build(1, 2), "unet")
    assert "'unet' has no attention; train attention_unet, or unet or residual_encoder_unet with" in str(caught.value)
    assert "\n" not in str(caught.value)
    require_attention(AttentionUNetConfig(channels=(4, 8)).build(1, 2), "attention_unet")
