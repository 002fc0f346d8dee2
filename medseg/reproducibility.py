"""What must be written down, and how chance is drawn, for a run to be made again."""

from __future__ import annotations

import hashlib
import importlib.metadata
import operator
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.errors import ModelError

if TYPE_CHECKING:
    import torch

GIT_TIMEOUT_S = 20
# Instructions that change which kernels torch picks, and with them the last bits of a result.
TELLING_FLAGS = ("avx2", "avx512f", "avx512_bf16", "avx512_fp16", "avx512_vnni", "amx_bf16", "amx_int8", "amx_tile")


@dataclass(frozen=True)
class GitState:
    """The state of a folder's code. `diff` is the text of all changes to tracked files since the commit."""

    commit: str
    is_dirty: bool
    diff: str
    untracked: tuple[str, ...]


def seeded(seed: int, *parts: int | str) -> int:
    """A number of 63 bits that depends on its arguments alone: the same on any machine, in any order of calls.

    `seeded(seed, "data", epoch, position)` and the like name each draw, so that no generator's state has to be kept.
    """
    blake = hashlib.blake2b(digest_size=8)
    for part in (seed, *parts):
        text = part if isinstance(part, str) else str(operator.index(part))
        blake.update(f"{'s' if isinstance(part, str) else 'i'}{len(text)}:{text}".encode())
    return int.from_bytes(blake.digest(), "big") >> 1


def weights_digest(state: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over the names, types, shapes and bytes of a state dict; the order of its keys does not matter."""
    import torch

    sha = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name]
        if not isinstance(tensor, torch.Tensor):
            raise ModelError(f"state dict entry {name!r} is {type(tensor).__name__}, no tensor; keep it elsewhere")
        sha.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        sha.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def environment() -> dict[str, Any]:
    """Everything outside the code that a result may depend on, as plain values for JSON."""
    import torch

    return {
        "python": platform.python_version(),
        "executable_bits": 64 if sys.maxsize > 2**32 else 32,
        "platform": platform.platform(),
        "cpu": cpu(),
        "threads": {"torch": torch.get_num_threads(), "torch_interop": torch.get_num_interop_threads()},
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "devices": _accelerators(),
        "packages": packages(),
    }


def arithmetic(device: torch.device) -> dict[str, str | int]:
    """What must be equal for the same computation to give the same bits."""
    import torch

    if device.type == "cuda":
        kernels = "exact" if torch.are_deterministic_algorithms_enabled() else "fast"
        return {"torch": str(torch.__version__), "device": torch.cuda.get_device_name(device), "kernels": kernels}
    return {"torch": str(torch.__version__), "device": str(cpu()["model"]), "threads": torch.get_num_threads()}


def packages() -> dict[str, str]:
    """Every installed package and its version: the lock of this environment."""
    found = {
        dist.name.lower().replace("_", "-"): dist.version for dist in importlib.metadata.distributions() if dist.name
    }
    return dict(sorted(found.items()))


def cpu() -> dict[str, Any]:
    """The processor's model, its cores as this process may use them, and which of the telling instructions it has."""
    fields = _cpuinfo()
    flags = set(fields.get("flags", fields.get("Features", "")).split())
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "model": fields.get("model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "cores_allowed": allowed,
        "flags": [flag for flag in TELLING_FLAGS if flag in flags],
    }


def _cpuinfo() -> dict[str, str]:
    """The first processor of Linux's list; empty elsewhere."""
    try:
        first = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split("\n\n")[0]
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _accelerators() -> list[dict[str, Any]]:
    import torch

    if not torch.cuda.is_available():
        return []
    driver = _output(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"])
    every = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return [
        {
            "name": one.name,
            "capability": f"{one.major}.{one.minor}",
            "memory_mib": one.total_memory // 2**20,
            "driver": driver.split("\n")[0].strip() if driver else None,
        }
        for one in every
    ]


def git_state(folder: Path) -> GitState | None:
    """The state of the code in `folder`, or None where it is not kept in git (or git is absent).

    A folder that merely lies inside a repository, for instance an environment's packages, has no tracked files.
    """
    git = ["git", "-C", str(folder), "-c", "core.quotepath=off"]
    if not _output([*git, "ls-files", "--", "."]):
        return None
    commit = _output([*git, "rev-parse", "--verify", "HEAD"])
    status = _output([*git, "status", "--porcelain", "--untracked-files=all"])
    diff = _output([*git, "diff", "--no-ext-diff", "--no-color", "HEAD"])
    if commit is None or status is None or diff is None:
        return None
    untracked = tuple(line[3:] for line in status.splitlines() if line.startswith("??"))
    return GitState(commit.strip(), bool(status.strip()), diff, untracked)


def _output(command: list[str]) -> str | None:
    """What a program prints, or None where it is absent, fails or takes too long."""
    try:
        done = subprocess.run(  # noqa: S603 - a fixed program, arguments as a list
            command, capture_output=True, timeout=GIT_TIMEOUT_S, check=True, encoding="utf-8", errors="replace"
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout
