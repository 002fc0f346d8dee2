"""What the machine is asked for, where that can be told without the device itself."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from medseg.devices import set_determinism
from medseg.errors import ConfigError

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.fixture
def switches() -> Iterator[None]:
    """Puts torch's switches back."""
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    precision = torch.get_float32_matmul_precision()
    yield
    torch.use_deterministic_algorithms(before[0])
    torch.backends.cudnn.benchmark = before[1]
    torch.set_float32_matmul_precision(precision)


def test_exact_training_on_cuda_needs_a_torch_that_can(monkeypatch: pytest.MonkeyPatch, switches: None) -> None:
    monkeypatch.setattr(torch, "__version__", "2.12.1+cu130")
    with pytest.raises(ConfigError, match=r"needs torch 2\.13, this is 2\.12\.1.*determinism: fast"):
        set_determinism(CUDA, exact=True)
    set_determinism(CUDA, exact=False)
    set_determinism(CPU, exact=True)


def test_exact_asks_for_kernels_that_repeat_their_bits(switches: None) -> None:
    set_determinism(CUDA, exact=False)
    assert torch.backends.cudnn.benchmark
    set_determinism(CUDA, exact=True)
    assert torch.are_deterministic_algorithms_enabled()
    assert not torch.is_deterministic_algorithms_warn_only_enabled()
    assert not torch.backends.cudnn.benchmark
