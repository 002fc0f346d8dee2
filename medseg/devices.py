"""What the machine can do: which device, which precision, how many threads; the only place that asks torch."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
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


def set_determinism(device: torch.device, exact: bool) -> None:
    """Has CUDA take kernels that give the same bits each time, or the fastest; a CPU always does the former.

    With `exact`, an operation that has no such kernel raises RuntimeError (torch.use_deterministic_algorithms lists
    them). Raises ConfigError where torch is older than 2.13, in which operations of 3D networks lack them.
    """
    if device.type != "cuda":
        return
    version = str(torch.__version__)
    if exact and tuple(map(int, version.split(".")[:2])) < (2, 13):
        advice = "update torch, or set training.determinism: fast"
        raise ConfigError(f"training.determinism 'exact' on CUDA needs torch 2.13, this is {version}; {advice}")
    torch.use_deterministic_algorithms(exact)
    torch.backends.cudnn.benchmark = not exact
    torch.set_float32_matmul_precision("highest" if exact else "high")


@dataclass(frozen=True)
class World:
    """The processes that train one network together, and which of them this is; one process by default."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of the values of all processes, in each of them."""
        if self.size == 1:
            return values
        summed = values.clone()
        torch.distributed.all_reduce(summed)
        return summed

    def first(self, values: torch.Tensor) -> torch.Tensor:
        """The values of the first process, in each of them; all give tensors of one shape."""
        if self.size == 1:
            return values
        told = values.clone()
        torch.distributed.broadcast(told, 0)
        return told

    def wait(self) -> None:
        """Until all processes are here."""
        if self.size > 1:
            torch.distributed.barrier()


ALONE = World()


def free_memory_bytes(device: torch.device) -> int:
    """Memory that nobody uses: of the GPU, or of the machine as far as this process may have it."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return min(_available(), *_container_limits(), sys.maxsize)


def _available() -> int:
    """MemAvailable of proc(5); elsewhere the memory that is built in."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _container_limits() -> list[int]:
    """What a container's control group allows (Linux, cgroup v2 and v1); nothing where it allows all."""
    found = []
    for place in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            found.append(int(Path(place).read_text(encoding="utf-8")))
    return found


def give_back_memory() -> None:
    """Returns what is free inside this process's heap to the system, where the C library can (glibc's malloc_trim(3)).

    Small objects that live on between large ones that do not would otherwise make the heap grow.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


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
