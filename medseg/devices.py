"""What the machine can do: which device, which precision, how many threads; the only place that asks torch."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Literal

import torch

from medseg.errors import ConfigError

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def choose_device(name: str) -> torch.device:
    """'auto' takes CUDA where there is one. Raises ConfigError for a device that this machine does not have."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"--device {name!r} is no device; choose auto, cpu, cuda or cuda:1") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices; choose auto or cpu"
        )
    return device


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 is computed by the hardware: AMX or AVX512-BF16 on a CPU, Ampere and later on a GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()  # absent in older torch: fp32 then
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def choose_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """The dtype of the network's arithmetic. 'auto': bf16 in hardware, else fp16 on CUDA, fp32 on a CPU."""
    if precision == "auto":
        if has_fast_bf16(device):
            return torch.bfloat16
        return torch.float16 if device.type == "cuda" else torch.float32
    if precision == "fp16" and device.type != "cuda":
        raise ConfigError("precision 'fp16' needs a CUDA device; choose auto, bf16 or fp32 on a CPU")
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Mixed precision in `dtype`; does nothing for float32."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def usable_cores() -> int:
    """The CPU cores that this process may use, which in a container are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def be_deterministic(device: torch.device) -> None:
    """Asks CUDA for kernels that give the same bits each time; a CPU does so for the same number of threads.

    An operation without such a kernel warns and goes on: torch.use_deterministic_algorithms lists them.
    """
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.backends.cudnn.benchmark = False


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory so far: on CUDA what torch held there, on a CPU what was resident of this process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_reserved(device))
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextlib.contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch's intra-op threads inside the block: results of reductions depend on it."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
