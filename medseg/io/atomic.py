"""Files that appear whole or not at all, so that a killed run never leaves a half-written result behind."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medseg.errors import WriteError


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path to write to, in the folder of `path` and with its suffixes; it becomes `path` at the end.

    The file is synced, renamed over `path`, and the folder synced. Where the body fails, or is interrupted, the
    temporary file is removed and `path` stays as it was. Raises WriteError for an OSError, the body's included.
    """
    temporary = path.with_name(f".{secrets.token_hex(6)}.{path.name}")
    try:
        yield temporary
        sync(temporary)
        os.replace(temporary, path)
        sync(path.parent)
    except OSError as error:
        reason = error.strerror or str(error)
        raise WriteError(f"{path}: cannot be written ({reason}); check the folder, its rights and its space") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def atomic_write_bytes(path: Path, data: bytes) -> Path:
    """Writes `data` to `path`, whole or not at all. Raises WriteError."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
    return path


def atomic_write_text(path: Path, text: str) -> Path:
    """Writes `text` as UTF-8 to `path`, line ends as given, whole or not at all. Raises WriteError."""
    return atomic_write_bytes(path, text.encode("utf-8"))


def sync(path: Path) -> None:
    """Has the disk keep what was written to a file or folder. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
