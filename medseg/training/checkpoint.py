"""Everything a run needs to go on where it stopped, written so that a crash leaves the one before it whole."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # torch.load raises it; nothing here is unpickled
from typing import Any

import torch

from medseg.errors import TrainingError
from medseg.io.atomic import atomic_write_bytes

DAMAGED = (  # what torch.load raises for the one damaged file or the other
    AssertionError, AttributeError, EOFError, LookupError, RuntimeError, TypeError, UnpicklingError, ValueError,
    struct.error,
)  # fmt: skip


@dataclass(frozen=True)
class Progress:
    """Where a run stands: steps done, the best validation so far, validations since then."""

    step: int = 0
    best_score: float | None = None
    best_step: int | None = None
    stale: int = 0


def save_checkpoint(path: Path, content: Mapping[str, Any]) -> None:
    """Writes tensors and plain values; the file at `path` is the old one or the new one, never a part."""
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    atomic_write_bytes(path, buffer.getvalue())


def load_checkpoint(path: Path) -> dict[str, Any]:
    """What `save_checkpoint` wrote; nothing in the file is executed. Raises TrainingError where it is damaged."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read ({error.strerror}); give the folder of a run") from error
    except DAMAGED as error:
        raise TrainingError(f"{path}: is damaged and cannot be loaded; resume from an older checkpoint") from error
    if not isinstance(content, dict):
        raise TrainingError(f"{path}: is no checkpoint of medseg; give the folder of a run")
    return content
