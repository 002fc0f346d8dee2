"""Tensors by name from a file that somebody else may have written: nothing in it is executed."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError  # torch.load raises it; nothing here is unpickled
from typing import Any

import torch

from medseg.errors import ConfigError

_WRAPPERS = ("state_dict", "model", "model_state_dict", "network")  # keys under which files keep their tensors
_DAMAGED = (  # what torch.load raises for the one damaged file or the other
    AssertionError, AttributeError, EOFError, LookupError, OSError, RuntimeError, TypeError, UnpicklingError,
    ValueError, struct.error,
)  # fmt: skip


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """The named tensors of a safetensors file or a torch state dict. Raises ConfigError; nothing is unpickled."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (*_DAMAGED, SafetensorError) as error:
        first = first_line(error)
        raise ConfigError(
            f"{path}: holds no plain tensors ({first}); give a safetensors file or a state dict of torch"
        ) from error
    named = _unwrapped(content)
    tensors = {key: value for key, value in named.items() if isinstance(key, str) and isinstance(value, torch.Tensor)}
    if not tensors:
        raise ConfigError(f"{path}: holds no state dict; give a safetensors file or a state dict of torch")
    return tensors


def _unwrapped(content: Any) -> Mapping[Any, Any]:
    """The state dict in what a file holds; beside it may stand tensors that are none of its, such as an epoch."""
    while isinstance(content, Mapping):
        inner = [content[key] for key in _WRAPPERS if isinstance(content.get(key), Mapping)]
        if not inner:
            return content
        content = inner[0]
    return {}


def first_line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
