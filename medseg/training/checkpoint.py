"""Everything a run needs to go on where it stopped, written so that a crash leaves the one before it whole."""

from __future__ import annotations

import hashlib
import io
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError  # torch.load raises it; nothing here is unpickled
from typing import Any, NamedTuple

import torch

from medseg.errors import TrainingError
from medseg.io.atomic import atomic_write_bytes

DAMAGED = (  # what torch.load raises for the one damaged file or the other
    AssertionError, AttributeError, EOFError, LookupError, RuntimeError, TypeError, UnpicklingError, ValueError,
    struct.error,
)  # fmt: skip
_NAME = re.compile(r"(?P<kind>[a-z]+)-(?P<step>\d{8})-(?P<digest>[0-9a-f]{16})\.pt")


@dataclass(frozen=True)
class Progress:
    """Where a run stands: steps done, scores of the validations so far, the best of them, validations since then."""

    step: int = 0
    scores: tuple[float, ...] = ()
    best_score: float | None = None
    best_step: int | None = None
    stale: int = 0

    def after(self, score: float) -> Progress:
        """With one more validation, at this step."""
        is_better = self.best_score is None or score > self.best_score
        best = (score, self.step, 0) if is_better else (self.best_score, self.best_step, self.stale + 1)
        return Progress(self.step, (*self.scores, score), *best)


class Found(NamedTuple):
    """A checkpoint's content, and the files that were passed over because they are damaged."""

    content: dict[str, Any]
    damaged: list[Path]


class Checkpoints:
    """The checkpoints of one kind in a folder, of which the newest `kept` stay.

    A file's name tells its step and the digest of its bytes: `last-00000500-0123456789abcdef.pt`. It appears whole or
    not at all, and one that was damaged afterwards is known by its name.
    """

    def __init__(self, folder: Path, kind: str, kept: int) -> None:
        self.folder, self.kind, self.kept = folder, kind, kept

    def save(self, step: int, content: Mapping[str, Any]) -> Path:
        """Writes tensors and plain values, then removes the oldest. Raises WriteError, with all others untouched."""
        buffer = io.BytesIO()
        torch.save(dict(content), buffer)
        data = buffer.getvalue()
        digest = hashlib.sha256(data).hexdigest()[:16]
        path = atomic_write_bytes(self.folder / f"{self.kind}-{step:08d}-{digest}.pt", data)
        self._tidy(step, path)
        return path

    def _tidy(self, step: int, newest: Path) -> None:
        """Leaves the newest `kept`. Later ones, from before the run went on from here, will come anew."""
        others = [path for path in self.files() if path != newest]
        later = [path for path in others if _step(path) > step]
        unfinished = self.folder.glob(f".*.{self.kind}-*.pt")  # of a process that was killed while writing
        for path in [*later, *others[len(later) + self.kept - 1 :], *unfinished]:
            path.unlink(missing_ok=True)

    def files(self) -> list[Path]:
        """The newest first."""
        found = [path for path in self.folder.glob(f"{self.kind}-*.pt") if _NAME.fullmatch(path.name)]
        return sorted(found, key=lambda path: (_step(path), path.stat().st_mtime_ns), reverse=True)

    def newest(self) -> Found:
        """The newest whole checkpoint; nothing in a file is executed. Raises TrainingError where there is none."""
        damaged: list[Path] = []
        for path in self.files():
            content = _whole(path)
            if content is not None:
                return Found(content, damaged)
            damaged.append(path)
        names = f" ({', '.join(path.name for path in damaged)} damaged)" if damaged else ""
        raise TrainingError(f"{self.folder}: holds no whole checkpoint{names}; start a new run")


def _step(path: Path) -> int:
    return int(path.name.split("-")[1])


def _whole(path: Path) -> dict[str, Any] | None:
    """A checkpoint's content; None where its bytes are not those that were written."""
    match = _NAME.fullmatch(path.name)
    try:
        data = path.read_bytes()
        if match is None or not hashlib.sha256(data).hexdigest().startswith(match["digest"]):
            return None
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (OSError, *DAMAGED):
        return None
    return content if isinstance(content, dict) else None
