"""Arrays on disk under the digest of all that they were made from: found again they are right, or they are not found.

Many processes may use one folder at once, and any of them may be killed at any moment. It holds patients' images, so
that only its owner may read it.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from medseg.errors import WriteError
from medseg.io.atomic import sync

FACTS = "entry.json"
_LOCK, _COUNT, _LEASES, _UNFINISHED, _GONE = "lock", "bytes", "leases", "unfinished", "gone"


class Entry(NamedTuple):
    """Arrays by name, mapped into memory (what is read is read from disk, what is written stays in this process)."""

    arrays: dict[str, np.ndarray]
    facts: dict[str, Any]


class Cache:
    """Entries in a folder, bounded in size: those used longest ago give way, but none that a process has leased.

    Locks are the kernel's (flock), so that those of a killed process are gone with it; the folder should be on a local
    disk.
    """

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes
        try:
            for name in (_LEASES, _UNFINISHED, _GONE):
                (folder / name).mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
            self._lease = _Held(folder / _LEASES)
        except OSError as error:
            raise WriteError(f"cache {folder}: cannot be made ({error.strerror}); choose another folder") from error
        self._sweep()

    def __getstate__(self) -> dict[str, Any]:
        """For a process of its own, a data loading worker for instance: it holds a lease of its own."""
        return {"folder": self.folder, "limit_bytes": self.limit_bytes}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self.folder, self.limit_bytes = state["folder"], state["limit_bytes"]
        self._lease = _Held(self.folder / _LEASES)

    def lease(self, keys: Iterable[str]) -> None:
        """From now on, until this process ends, nobody removes these entries, those not yet made included."""
        with self._locked():
            self._lease.write("".join(f"{key}\n" for key in keys))

    def has(self, key: str) -> bool:
        """Whether the entry is there and every byte of it is as it was written; reads them all."""
        facts = self._facts(key)
        if facts is None:
            return False
        try:
            return facts["sha256"] == {name: file_digest(self._home(key) / f"{name}.npy") for name in facts["bytes"]}
        except OSError:  # it gave way in between
            return False

    def open(self, key: str) -> Entry | None:
        """The entry, or None where it is absent or cut short."""
        facts = self._facts(key)
        if facts is None:
            return None
        home = self._home(key)
        try:
            arrays = {name: np.load(home / f"{name}.npy", mmap_mode="c") for name in facts["bytes"]}
        except (OSError, ValueError):  # it gave way in between, or its header is damaged
            return None
        return Entry(arrays, facts["facts"])

    def put(self, key: str, entry: Entry) -> None:
        """Keeps an entry. Where another process was faster, its entry stays. Raises WriteError on a full disk."""
        draft = _Held(self.folder / _UNFINISHED)
        try:
            written = draft.path.with_suffix(".entry")
            written.mkdir()
            for name, array in entry.arrays.items():
                _write(written / f"{name}.npy", partial(np.save, arr=array, allow_pickle=False))
            files = {name: written / f"{name}.npy" for name in entry.arrays}
            content = {
                "bytes": {name: file.stat().st_size for name, file in files.items()},
                "sha256": {name: file_digest(file) for name, file in files.items()},
                "facts": entry.facts,
            }
            _write(written / FACTS, lambda file: file.write(json.dumps(content).encode()))
            sync(written)
            self._install(key, written)
        except OSError as error:
            raise WriteError(
                f"cache {self.folder}: cannot be written ({error.strerror}); free some space, or choose another folder"
            ) from error
        finally:
            shutil.rmtree(draft.path.with_suffix(".entry"), ignore_errors=True)
            draft.release()

    def size_bytes(self) -> int:
        """The sum over all whole entries."""
        return sum(size for _, _, size in self._entries())

    def _home(self, key: str) -> Path:
        return self.folder / key[:2] / key

    def _facts(self, key: str) -> dict[str, Any] | None:
        """What an entry says of itself, where all its files are as long as they were written; marks it as used."""
        home = self._home(key)
        try:
            facts: dict[str, Any] = json.loads((home / FACTS).read_text(encoding="utf-8"))
            sizes = {name: (home / f"{name}.npy").stat().st_size for name in facts["bytes"]}
            os.utime(home / FACTS)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return facts if sizes == facts["bytes"] else None

    def _install(self, key: str, written: Path) -> None:
        """Moves a finished entry to its place in one step; a damaged one there is moved away first."""
        home = self._home(key)
        home.parent.mkdir(exist_ok=True)
        size = sum(file.stat().st_size for file in written.iterdir())
        with self._locked():
            if home.exists():
                if self.has(key):
                    return
                self._remove(home)
                self._count(self.size_bytes())
            total = self._room_for(size)
            os.rename(written, home)
            self._count(total + size)
        sync(home.parent)

    def _room_for(self, size: int) -> int:
        """Removes entries, those used longest ago first, until `size` more bytes fit; gives the bytes that are left.

        Raises WriteError where all that is left is leased.
        """
        total = int((self.folder / _COUNT).read_text())
        if total + size <= self.limit_bytes:
            return total
        leased = set().union(*(path.read_text().split() for path in self._held(_LEASES)))
        entries = sorted(self._entries())
        total = sum(bytes_ for _, _, bytes_ in entries)
        for _, home, bytes_ in entries:
            if total + size > self.limit_bytes and home.name not in leased:
                self._remove(home)
                total -= bytes_
        self._count(total)
        if total + size > self.limit_bytes:
            raise WriteError(
                f"cache {self.folder}: its limit of {self.limit_bytes / 1e9:.3g} GB is too little for what is in use "
                f"and {size / 1e6:.3g} MB more; raise the limit"
            )
        return total

    def _count(self, total: int) -> None:
        (self.folder / _COUNT).write_text(str(total))

    def _entries(self) -> Iterator[tuple[int, Path, int]]:
        """When each entry was last used, where it lies, and its bytes."""
        for facts in self.folder.glob(f"??/*/{FACTS}"):
            with suppress(OSError):  # it gave way in between
                used = facts.stat().st_mtime_ns
                yield used, facts.parent, sum(file.stat().st_size for file in facts.parent.iterdir())

    def _remove(self, home: Path) -> None:
        """Out of sight in one step, then away: who has mapped it keeps what was mapped."""
        hidden = self.folder / _GONE / secrets.token_hex(8)
        os.rename(home, hidden)
        shutil.rmtree(hidden, ignore_errors=True)

    def _sweep(self) -> None:
        """Clears away what processes that were killed have left."""
        with self._locked():
            for kind in (_LEASES, _UNFINISHED):
                held = set(self._held(kind))
                for path in set((self.folder / kind).glob("*.lock")) - held:
                    shutil.rmtree(path.with_suffix(".entry"), ignore_errors=True)
                    path.unlink(missing_ok=True)
            for path in (self.folder / _GONE).iterdir():
                shutil.rmtree(path, ignore_errors=True)
            self._count(self.size_bytes())

    def _held(self, kind: str) -> list[Path]:
        """The lock files whose processes live."""
        return [path for path in (self.folder / kind).glob("*.lock") if _is_held(path)]

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time."""
        with (self.folder / _LOCK).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


class _Held:
    """A file of its own that is locked as long as this process lives."""

    def __init__(self, folder: Path) -> None:
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        hidden = folder / f".{name}"  # locked before it can be seen, so that nobody takes it for a dead one's
        self.path = folder / f"{name}.lock"
        self._file: IO[str] = hidden.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        os.rename(hidden, self.path)

    def write(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()

    def release(self) -> None:
        self.path.unlink(missing_ok=True)
        self._file.close()


def _is_held(path: Path) -> bool:
    """Whether the process that locked a file still lives."""
    with suppress(OSError), path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _write(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """A new file, on the disk when this returns."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())


def key_of(content: Mapping[str, Any]) -> str:
    """The digest that names what is made from `content`, which JSON must be able to hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 over a file's bytes or, for a folder, over the names and digests of all files in it."""
    if path.is_dir():
        files = [file for file in sorted(path.rglob("*")) if file.is_file()]
        listed = "".join(f"{file.relative_to(path).as_posix()}\0{file_digest(file)}\0" for file in files)
        return hashlib.sha256(listed.encode()).hexdigest()
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
