"""`medseg doctor`: what this machine has, what is missing, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from medseg.extras import ZOO
from pipelines.console import Console

LEAST_FREE_GIB = 5
LEAST_MEMORY_GIB = 8
CORE = ("torch", "monai", "mlflow", "pydicom", "highdicom", "nibabel", "SimpleITK", "numpy", "scipy", "pydantic")
CODECS = {
    "JPEG Baseline": "1.2.840.10008.1.2.4.50",
    "JPEG Lossless": "1.2.840.10008.1.2.4.70",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
    "HTJ2K": "1.2.840.10008.1.2.4.201",
    "RLE": "1.2.840.10008.1.2.5",
}
PLUGINS = {"HTJ2K": "pylibjpeg pylibjpeg-openjpeg", "JPEG-LS": "pyjpegls", "RLE": "pydicom"}


@dataclass(frozen=True)
class Finding:
    """One fact about the machine; `fix` says what to do where it is not well."""

    name: str
    state: Literal["ok", "note", "missing"]
    detail: str
    fix: str = ""


def doctor() -> dict[str, Any]:
    """Prints versions, devices, instructions, threads, codecs, space and the tracking store."""
    console = Console()
    findings = [*_versions(), *_compute(), *_codecs(), *_space(), *_tracking()]
    console.table(["", "state", "detail"], [[one.name, one.state, one.detail] for one in findings])
    for one in findings:
        if one.fix:
            console.say(f"{one.name}: {one.fix}")
    missing = [one.name for one in findings if one.state == "missing"]
    console.say(f"missing: {', '.join(missing)}" if missing else "nothing is missing")
    return {"healthy": not missing, "missing": missing, "findings": [asdict(one) for one in findings]}


def _versions() -> Iterator[Finding]:
    from medseg import __version__

    yield Finding("medseg", "ok", __version__)
    for name in CORE:
        try:
            yield Finding(name, "ok", importlib.metadata.version(name))
        except importlib.metadata.PackageNotFoundError:
            yield Finding(name, "missing", "not installed", f"pip install {name}")
    absent = ZOO.absent()
    if absent:
        yield Finding(
            f"extra {ZOO.name}", "note", f"without {', '.join(absent)}", f"for some 2D networks: {ZOO.command}"
        )
    else:
        yield Finding(f"extra {ZOO.name}", "ok", ", ".join(ZOO.modules))


def _compute() -> Iterator[Finding]:
    from medseg.reproducibility import cpu

    facts = cpu()
    yield Finding("cpu", "ok", f"{facts['model']}, {facts['cores_allowed']} of {facts['cores']} cores")
    flags = facts["flags"]
    fast = "amx_bf16" in flags or "avx512_bf16" in flags
    yield Finding("cpu instructions", "ok" if fast else "note", ", ".join(flags) or "none of those that matter")
    if importlib.util.find_spec("torch") is None:
        return
    import torch

    yield Finding("threads", "ok", f"{torch.get_num_threads()} within an operation")
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    detail = ", ".join(names) or f"none (torch {torch.__version__}, CUDA {torch.version.cuda or 'not built in'})"
    yield Finding("gpu", "ok" if names else "note", detail)


def _codecs() -> Iterator[Finding]:
    if importlib.util.find_spec("pydicom") is None:
        return
    from pydicom.pixels import get_decoder

    for name, uid in CODECS.items():
        plugins = get_decoder(uid).available_plugins
        fix = "" if plugins else f"pip install {PLUGINS.get(name, 'python-gdcm')}"
        yield Finding(f"dicom {name}", "ok" if plugins else "missing", ", ".join(plugins) or "no decoder", fix)


def _space() -> Iterator[Finding]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    few = free < LEAST_FREE_GIB
    yield Finding("disk here", "note" if few else "ok", f"{free:.1f} GiB free", "free some space" if few else "")
    from pipelines.study import LIMIT_VARIABLE, cache_folder

    folder = cache_folder()
    used = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9
    yield Finding("cache", "ok", f"{used:.1f} GB in {folder}, prepared cases up to ${LIMIT_VARIABLE} (100)")
    if "SC_AVPHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
        state: Literal["ok", "note"] = "ok" if memory >= LEAST_MEMORY_GIB else "note"
        yield Finding("memory", state, f"{memory:.1f} GiB")


def _tracking() -> Iterator[Finding]:
    writable = os.access(Path.cwd(), os.W_OK)
    yield Finding(
        "mlflow store",
        "ok" if writable else "note",
        "by default mlflow.db in the output folder" + ("" if writable else "; this folder cannot be written"),
        "" if writable else "give --output a folder that you may write",
    )
