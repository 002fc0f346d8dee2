"""SegFormer in 3D against arithmetic, and in 2D against the library that builds it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention, softmax

from medseg.config import validate
from medseg.errors import ConfigError
from medseg.extras import ZOO
from medseg.networks import SegFormerConfig
from medseg.networks.transformers.segformer_module import Attention

needs_zoo = pytest.mark.skipif(not ZOO.is_installed(), reason="needs the extra 'zoo'")
SMALL: dict[str, Any] = {
    "channels": (4, 6), "depths": (1, 2), "heads": (1, 2), "reductions": (2, 1), "width": 8,
}  # fmt: skip


def encoder_parameters(
    dims: int, in_channels: int, widths: Sequence[int], depths: Sequence[int], reductions: Sequence[int], ratio: int = 4
) -> int:
    """The docstring's sum, for any number of axes."""
    total, before = 0, in_channels
    for index, (c, depth, reduction) in enumerate(zip(widths, depths, reductions, strict=True)):
        embedding = (3 if index else 7) ** dims * before * c + c + 2 * c
        attention = 4 * c * c + 4 * c + (reduction**dims * c * c + 3 * c if reduction > 1 else 0)
        feed_forward = 2 * ratio * c * c + ratio * c + c + (3**dims + 1) * ratio * c
        total += embedding + depth * (4 * c + attention + feed_forward) + 2 * c
        before = c
    return total


def test_parameters_are_as_many_as_arithmetic_says() -> None:
    network = SegFormerConfig(**SMALL).build(2, 3)
    decoder = (4 * 8 + 8) + (6 * 8 + 8) + 2 * 8 * 8 + 2 * 8 + 8 * 3 + 3
    counted = sum(parameter.numel() for parameter in network.parameters())
    assert counted == encoder_parameters(3, 2, (4, 6), (1, 2), (2, 1)) + decoder


@needs_zoo
def test_the_same_sum_over_two_axes_counts_the_papers_encoder() -> None:
    from medseg.networks.encoders.smp_encoders import make_encoder

    defaults = SegFormerConfig()
    counted = sum(parameter.numel() for parameter in make_encoder("mit_b0", 3).parameters())
    assert counted == encoder_parameters(2, 3, defaults.channels, defaults.depths, defaults.reductions)


def test_every_voxel_sees_every_other() -> None:
    torch.manual_seed(0)
    network = SegFormerConfig(**SMALL).build(1, 2).eval()
    image = torch.randn(1, 1, 64, 8, 8, requires_grad=True)
    network(image)[0, 0, 0, 0, 0].backward()
    assert image.grad is not None
    assert (image.grad[0, 0, :, 0, 0] != 0).all()


def test_attention_without_reduction_is_softmax_of_scaled_products() -> None:
    torch.manual_seed(0)
    attention, grid = Attention(6, heads=2, reduction=1), torch.Size((2, 3, 1))
    tokens = torch.randn(1, 6, 6)
    query, (key, value) = attention.query(tokens), attention.key_value(tokens).chunk(2, dim=-1)
    heads = []
    for part in (slice(0, 3), slice(3, 6)):
        weights = softmax(query[..., part] @ key[..., part].transpose(1, 2) / math.sqrt(3), dim=-1)
        heads.append(weights @ value[..., part])
    torch.testing.assert_close(attention(tokens, grid), attention.out(torch.cat(heads, dim=-1)))


def test_reduction_leaves_one_key_for_so_many_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def watched(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        seen.append((query.shape[2], key.shape[2]))
        return scaled_dot_product_attention(query, key, value)

    monkeypatch.setattr("medseg.networks.transformers.segformer_module.scaled_dot_product_attention", watched)
    SegFormerConfig(**SMALL).build(1, 2)(torch.randn(1, 1, 16, 16, 16))
    assert seen == [(64, 8), (8, 8), (8, 8)]


def test_stochastic_depth_acts_in_training_alone() -> None:
    network = SegFormerConfig(**SMALL, drop_path=0.9).build(1, 2)
    image = torch.randn(1, 1, 16, 8, 8)
    with torch.no_grad():
        noisy = [network(image) for _ in range(8)]
        network.eval()
        calm = [network(image) for _ in range(2)]
    assert any(not torch.equal(noisy[0], other) for other in noisy)
    assert torch.equal(*calm)


@pytest.mark.parametrize(
    ("settings", "divisor"), [({}, 32), (SMALL, 8), ({**SMALL, "reductions": (3, 1)}, 24), ({"spatial_dims": 2}, 32)]
)
def test_sizes_hold_whole_tokens_and_whole_reductions(settings: dict[str, Any], divisor: int) -> None:
    config = SegFormerConfig(**settings)
    assert config.divisor() == (divisor,) * config.spatial_dims


@needs_zoo
def test_in_2d_it_is_the_librarys_own() -> None:
    import segmentation_models_pytorch as smp

    torch.manual_seed(0)
    theirs = smp.Segformer("mit_b0", encoder_weights=None, in_channels=2, classes=3).eval()
    ours = SegFormerConfig(spatial_dims=2).build(2, 3).eval()
    ours.load_state_dict(theirs.state_dict())
    image = torch.randn(1, 2, 64, 32)
    assert torch.equal(ours(image), theirs(image))


@needs_zoo
def test_in_2d_it_trains_at_the_smallest_size() -> None:
    config = SegFormerConfig(spatial_dims=2, width=32)
    config.check_size((64, 32), "patch.size")
    network = config.build(1, 2)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = network(torch.randn(1, 1, 64, 32))
    logits.float().square().mean().backward()
    assert logits.shape == (1, 2, 64, 32)
    assert logits.isfinite().all()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"depths": [1, 1]}, "depths has 2 entries, but 4 channels need as many"),
        ({"heads": [3, 2, 5, 8]}, "3 does not divide 32"),
        ({"width": 12}, "12 cannot be split in 8 groups"),
        ({"weights": "imagenet"}, "weights is a key of 'segformer' in 2D alone"),
        ({"encoder": "mit_b1"}, "encoder is a key of 'segformer' in 2D alone"),
        ({"spatial_dims": 2, "channels": [8]}, "channels is a key of 'segformer' in 3D alone"),
        ({"spatial_dims": 2, "drop_path": 0.1}, "drop_path is a key of 'segformer' in 3D alone"),
    ],
)
def test_wrong_settings_are_refused_with_the_reason(content: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(SegFormerConfig, content, "experiment.yaml")
    assert says in str(caught.value)
