"""What a network costs on a batch: weights, arithmetic, time and memory, so that architectures can be compared."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

WARMUP, REPETITIONS = 2, 9
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Spent:
    """Time and memory of one kind of work on a batch; seconds are of one patch, memory is of the whole batch."""

    seconds: float  # median over the repetitions
    fastest_s: float
    slowest_s: float
    peak_bytes: int  # most that was held at a time, weights included, beyond what the process holds without a network


def count_parameters(network: nn.Module) -> int:
    """The number of trainable weights."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def forward_flops(network: nn.Module, image: torch.Tensor) -> int:
    """Floating-point operations of one forward pass in eval mode; a multiply-add counts as two.

    Counted are convolutions, linear layers and matrix products, those of attention included. Norms, activations, pools,
    interpolations and biases are left out, as is usual: they cost memory traffic, little arithmetic.
    """
    was_training = network.training
    network.eval()
    # The plain products of attention are counted in every version of torch; fused kernels, and the fused encoder layer
    # that no_grad would allow, are not. Hence gradients stay on.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network(image)
    network.train(was_training)
    return counter.get_total_flops()


def inference(network: nn.Module, images: torch.Tensor, dtype: torch.dtype) -> Callable[[], object]:
    """One forward pass of a batch, as work to be measured."""
    network.eval()

    def work() -> object:
        with torch.inference_mode(), _autocast(images.device, dtype):
            return network(images)

    return work


def training_step(
    network: nn.Module,
    loss: Callable[[Any, torch.Tensor], torch.Tensor],
    optimizer: torch.optim.Optimizer,
    pieces: Sequence[tuple[torch.Tensor, torch.Tensor]],
    dtype: torch.dtype,
) -> Callable[[], object]:
    """One optimizer step on a batch, forward and backward, as work to be measured.

    `pieces` are images `(B, C, *S)` and labels, of which the gradients are summed before the step.
    """
    network.train()
    device = pieces[0][0].device
    scaler = torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)

    def work() -> None:
        optimizer.zero_grad(set_to_none=True)
        for images, labels in pieces:
            with _autocast(device, dtype):
                logits = network(images)
            scaler.scale(loss(logits, labels) / len(pieces)).backward()
        scaler.step(optimizer)
        scaler.update()

    return work


class Meter:
    """Reads the peak of memory since it was made, beyond what the process would hold without the network.

    On CUDA what torch's allocator gave out. On a CPU the process's resident pages, so only a fresh process tells: an
    older one has freed pages that work fills unseen. Made after the network is built, since building imports packages;
    the weights are then taken off the starting point.
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self.device, self.start = device, 0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            self.start = _resident_now() - _held_bytes(network)

    def peak_bytes(self) -> int:
        """The peak until now."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return max(0, _resident_peak() - self.start)


def measure(
    work: Callable[[], object], patches: int, meter: Meter, warmup: int = WARMUP, repetitions: int = REPETITIONS
) -> Spent:
    """Time and memory of work on a batch of so many patches."""
    for _ in range(warmup):
        work()
    seconds = []
    for _ in range(repetitions):
        _finish(meter.device)
        begin = time.perf_counter()
        work()
        _finish(meter.device)
        seconds.append((time.perf_counter() - begin) / patches)
    return Spent(median(seconds), min(seconds), max(seconds), meter.peak_bytes())


def _autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def _finish(device: torch.device) -> None:
    """Waits for what was only queued."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _held_bytes(network: nn.Module) -> int:
    """Bytes of weights and buffers."""
    return sum(tensor.numel() * tensor.element_size() for tensor in (*network.parameters(), *network.buffers()))


def _resident_now() -> int:
    """Bytes of the process in memory, from where its peak is counted anew: proc(5), clear_refs and VmRSS."""
    try:
        _RESET.write_text("5", encoding="ascii")
    except OSError:  # no Linux, or not allowed: the peak so far is the start
        return _resident_peak()
    return _status("VmRSS") or _resident_peak()


def _resident_peak() -> int:
    """The most bytes of the process in memory so far; getrusage alone would tell the parent's where that is larger."""
    in_bytes = 1 if sys.platform == "darwin" else 1024
    return _status("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * in_bytes


def _status(key: str) -> int | None:
    """A size in bytes from Linux's account of the process; None elsewhere."""
    try:
        lines = _STATUS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    found = [line.split()[1] for line in lines if line.startswith(f"{key}:")]
    return int(found[0]) * 1024 if found else None
