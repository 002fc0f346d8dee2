"""What a network costs: counts against arithmetic, memory against what is known to be held."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from medseg.networks import UNetConfig
from medseg.networks.cost import Meter, count_parameters, forward_flops, inference, measure, training_step

CPU = torch.device("cpu")


@pytest.mark.parametrize("dims", [2, 3])
def test_the_flops_of_one_convolution(dims: int) -> None:
    """Each output voxel: 3^d voxels of 2 channels, multiplied and added; 4 outputs on a grid of 8^d."""
    network = (nn.Conv2d, nn.Conv3d)[dims - 2](2, 4, 3, padding=1)
    assert forward_flops(network, torch.zeros(1, 2, *[8] * dims)) == 2 * 3**dims * 2 * 4 * 8**dims


def test_the_flops_of_attention_are_counted() -> None:
    """Four projections of n x w by w x w, and two products of n x n x w for scores and sums; n 16, w 8."""
    layer = nn.MultiheadAttention(8, 2, batch_first=True)

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            return self.layer(image, image, image, need_weights=False)[0]

    assert forward_flops(Attention(), torch.zeros(1, 16, 8)) == 2 * (4 * 16 * 8 * 8 + 2 * 16 * 16 * 8)


def test_counting_leaves_the_mode_as_it_was() -> None:
    network = nn.Conv2d(1, 1, 1)
    forward_flops(network.train(), torch.zeros(1, 1, 4, 4))
    assert network.training


def test_the_parameters_of_a_known_unet() -> None:
    """Two stages of 4 and 8 channels in 2D; each convolution is followed by a norm with scale and shift.

    Encoder 1-4-4-8-8, transposed 8-4 of 2 x 2, decoder (4 + 4)-4-4, head 4-2 of 1 x 1.
    """
    network = UNetConfig(spatial_dims=2, channels=(4, 8)).build(1, 2)
    weights = sum(parameter.numel() for name, parameter in network.named_parameters() if parameter.ndim == 4)
    assert weights == 9 * (1 * 4 + 4 * 4 + 4 * 8 + 8 * 8) + 4 * 8 * 4 + 9 * (8 * 4 + 4 * 4) + 4 * 2
    assert count_parameters(network) == sum(parameter.numel() for parameter in network.parameters())
    for parameter in network.parameters():
        parameter.requires_grad = False
    assert count_parameters(network) == 0


def test_seconds_are_of_one_patch_and_the_warm_up_is_left_out() -> None:
    pauses = iter([0.2, 0.02, 0.02, 0.04])
    network = nn.Conv2d(1, 1, 1)
    spent = measure(lambda: time.sleep(next(pauses)), patches=2, meter=Meter(network, CPU), warmup=1, repetitions=3)
    assert 0.01 <= spent.seconds < 0.02
    assert 0.01 <= spent.fastest_s <= spent.seconds < 0.02 <= spent.slowest_s < 0.1


def test_a_training_step_moves_the_weights_as_the_whole_batch_would() -> None:
    torch.manual_seed(0)
    images, labels = torch.randn(4, 1, 8, 8), torch.randn(4, 1, 8, 8)
    found = []
    for pieces in (1, 2):
        torch.manual_seed(1)
        network = nn.Conv2d(1, 1, 3, padding=1)
        before = network.weight.clone()
        optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        parts = list(zip(images.chunk(pieces), labels.chunk(pieces), strict=True))
        training_step(network, nn.functional.mse_loss, optimizer, parts, torch.float32)()
        assert not torch.equal(network.weight, before)
        found.append(network.weight.detach())
    torch.testing.assert_close(found[0], found[1])


def test_inference_computes_in_the_precision_asked_for() -> None:
    network, images = nn.Conv2d(1, 2, 3), torch.randn(1, 1, 8, 8)
    result = inference(network.train(), images, torch.bfloat16)()
    assert isinstance(result, torch.Tensor)
    assert result.dtype == torch.bfloat16
    assert not network.training
    assert not result.requires_grad


MEMORY = """
import torch
from torch import nn
from medseg.networks.cost import Meter, measure
heavy = torch.ones(50_000_000)  # 200 MB that are gone before the network is built
del heavy
network = nn.Linear(5000, 4000)  # 80 MB
meter = Meter(network, torch.device("cpu"))
held = measure(lambda: None, 1, meter).peak_bytes
more = measure(lambda: torch.ones(25_000_000).sum(), 1, meter).peak_bytes  # 100 MB
print(held, more)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak cannot be counted anew")
def test_memory_is_the_peak_beyond_the_process_without_the_network() -> None:
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, timeout=120)
    held, more = (int(number) / 1e6 for number in done.stdout.split())
    assert held == pytest.approx(80, abs=15)
    assert more == pytest.approx(180, abs=25)
