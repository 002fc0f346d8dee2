"""bf16 on CPU gives the result and gradient of float32 where a grid is shallower than the kernel."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from medseg.extras import ZOO
from medseg.networks.shallow_convolution import guard_shallow_grids


def _weight_gradient(convolution: nn.Module, image: torch.Tensor, bf16: bool) -> torch.Tensor:
    convolution.zero_grad()
    poison = [torch.full((count,), float("nan")) for count in (1_000, 10_000, 100_000) for _ in range(20)]
    del poison  # freed memory full of NaN shows a kernel that reads what it never wrote
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        result = convolution(image)
    result.float().square().sum().backward()
    gradient = convolution.weight.grad
    assert isinstance(gradient, torch.Tensor)
    return gradient.clone()


@pytest.mark.parametrize(
    ("convolution", "depth"),
    [
        (nn.Conv3d(32, 32, 3, padding=1), 2),
        (nn.Conv3d(32, 32, 3, padding=1), 1),
        (nn.Conv3d(32, 32, 5, padding=2), 4),
        (nn.Conv3d(32, 32, 3, padding=1), 3),
        (nn.Conv3d(32, 32, 3, padding=1, stride=2), 4),
        (nn.ConvTranspose3d(32, 32, 3, padding=1), 2),
        (nn.ConvTranspose3d(32, 32, 3, stride=2, padding=1, output_padding=1), 1),
        (nn.ConvTranspose3d(32, 32, 2, stride=2), 1),
    ],
)
def test_bf16_weight_gradient_equals_that_of_float32(convolution: nn.Module, depth: int) -> None:
    torch.manual_seed(0)
    guarded = guard_shallow_grids(nn.Sequential(convolution))[0]
    image = torch.randn(2, 32, depth, 4, 4)
    expected = _weight_gradient(guarded, image, bf16=False)
    for _ in range(3):
        found = _weight_gradient(guarded, image, bf16=True)
        assert float((found - expected).norm() / expected.norm()) < 0.02


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (7, 4)])
@pytest.mark.parametrize("size", [(4, 2), (8, 2), (2, 1), (4, 1), (8, 4)])
def test_bf16_result_and_weight_gradient_of_a_strided_2d_convolution_equal_those_of_float32(
    size: tuple[int, int], kernel: int, stride: int
) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(160, 256, kernel, stride=stride, padding=kernel // 2)
    guarded = guard_shallow_grids(nn.Sequential(convolution))[0]
    image = torch.randn(2, 160, *size)
    expected, gradient = guarded(image), _weight_gradient(guarded, image, bf16=False)
    for _ in range(3):
        found = _weight_gradient(guarded, image, bf16=True)
        assert float((found - gradient).norm() / gradient.norm()) < 0.02
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = guarded(image).float()
        assert float((result - expected).norm() / expected.norm()) < 0.02


class Standardised(nn.Conv2d):
    """A derived convolution as other libraries have them: the weight is another one at each pass."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        return nn.functional.conv2d(input, weight, self.bias, self.stride, self.padding)


def _derived(name: str) -> nn.Module:
    if name == "Standardised":
        return Standardised(160, 256, 3, stride=2, padding=1)
    from timm import layers

    made: nn.Module = getattr(layers, name)(160, 256, 3, stride=2, padding=1)
    return made


needs_zoo = pytest.mark.skipif(not ZOO.is_installed(), reason="needs the extra 'zoo'")


@pytest.mark.parametrize(
    "name", ["Standardised", *(pytest.param(one, marks=needs_zoo) for one in ("StdConv2d", "ScaledStdConv2d"))]
)
def test_classes_derived_from_torchs_are_guarded_too(name: str) -> None:
    torch.manual_seed(0)
    guarded = guard_shallow_grids(nn.Sequential(_derived(name)))[0]
    image = torch.randn(2, 160, 4, 2)
    expected, gradient = guarded(image), _weight_gradient(guarded, image, bf16=False)
    for _ in range(3):
        found = _weight_gradient(guarded, image, bf16=True)
        assert float((found - gradient).norm() / gradient.norm()) < 0.02
        with torch.autocast("cpu", dtype=torch.bfloat16):
            result = guarded(image).float()
        assert float((result - expected).norm() / expected.norm()) < 0.02
        assert float((result - expected).abs().max()) < 1e-4  # it is float32, on every CPU


def test_guarding_twice_is_guarding_once_and_copies_are_guarded() -> None:
    network = guard_shallow_grids(nn.Sequential(Standardised(1, 1, 3), nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 1)))
    kinds = [type(module) for module in network]
    assert kinds[1] is kinds[2]
    assert isinstance(network[0], Standardised)
    assert [type(module) for module in guard_shallow_grids(network)] == kinds
    assert [type(module) for module in copy.deepcopy(network)] == kinds


def test_guarded_network_keeps_its_weights_and_their_names() -> None:
    network = nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.ConvTranspose3d(2, 1, 2, stride=2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    after = guard_shallow_grids(network).state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
