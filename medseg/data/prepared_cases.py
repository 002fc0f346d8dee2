"""The training cases as prepared once and kept in the cache: a patch that is cut from one costs what a patch costs."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import cache as remembered
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from medseg.data.cache import Cache, Entry, file_digest, key_of
from medseg.data.cases import existing, read_case
from medseg.data.dataset import Case
from medseg.data.loaders import TrainingCase, leave_signals_to_the_parent, training_case
from medseg.data.manifest import Manifest
from medseg.data.preprocessing import Preprocessing, prepare
from medseg.devices import give_back_memory, threads
from medseg.errors import DataError, ManifestError, MedsegError

_OPEN = 256  # cases that are mapped at a time, far fewer than the files a process may have open
_FORMAT = 1  # of the arrays below
_LIBRARIES = (  # what a prepared array may depend on beside our own code
    "gdcm", "highdicom", "imagecodecs", "monai", "nibabel", "numpy", "pillow", "pydicom", "pyjpegls", "pylibjpeg",
    "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle", "python-gdcm", "scipy", "simpleitk", "tifffile",
    "torch",
)  # fmt: skip
_ROOMS = ("io", "data", "geometry.py", "volume.py", "labels.py", "config.py")  # our own code that they depend on


class PreparedCases(Sequence[TrainingCase]):
    """Cases in the cache, opened when they are asked for; a bounded number of them stays open."""

    def __init__(self, cache: Cache, cases: Sequence[tuple[str, str]]) -> None:
        self.cache, self.cases = cache, list(cases)  # id and key of each
        self._open: OrderedDict[int, TrainingCase] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        """Without what is open: another process opens its own."""
        return {"cache": self.cache, "cases": self.cases, "_open": OrderedDict()}

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> TrainingCase:  # type: ignore[override]  # no slices
        if index not in self._open:
            self._open[index] = self._opened(*self.cases[range(len(self))[index]])
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)
        self._open.move_to_end(index)
        return self._open[index]

    def _opened(self, case_id: str, key: str) -> TrainingCase:
        give_back_memory()  # what patches left, before this case's small objects settle between it
        entry = self.cache.open(key)
        if entry is None:
            raise DataError(f"case {case_id} is gone from cache {self.cache.folder}; resume the run to make it anew")
        ends = np.cumsum(entry.facts["positions"])[:-1]
        return TrainingCase(
            case_id,
            torch.from_numpy(entry.arrays["image"]),
            torch.from_numpy(entry.arrays["label"]),
            np.split(entry.arrays["positions"], ends),
            entry.facts["fill"],
        )


class _Preparation(Dataset[tuple[str, str] | MedsegError]):
    """Case -> its id and key, once it is in the cache; or why it cannot be, so that a worker's error keeps its kind."""

    def __init__(
        self, manifest: Manifest, cases: Sequence[Case], root: Path, settings: Preprocessing, cache: Cache
    ) -> None:
        self.manifest, self.cases, self.root, self.settings, self.cache = manifest, cases, root, settings, cache

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> tuple[str, str] | MedsegError:
        case = self.cases[index]
        try:
            with threads(1):
                key = self._key(case)
                self.cache.lease([key])
                if not self.cache.has(key):
                    self.cache.put(key, self._made(case))
                return case.id, key
        except MedsegError as error:
            return error

    def _key(self, case: Case) -> str:
        """The digest of all that the case's arrays are made from."""
        files = [existing(case, path, self.root) for path, _ in case.files]
        content = {
            "format": _FORMAT,
            "files": [file_digest(file) for file in files],
            "expected": [digest for _, digest in case.files],
            "dataset": self.manifest.dataset.model_dump(mode="json", include={"spatial_dims", "channels", "labels"}),
            "preprocessing": self.settings.model_dump(mode="json"),
            "annotated": case.annotated,
            "code": _code_digest(),
            "libraries": _versions(),
        }
        return key_of(content)

    def _made(self, case: Case) -> Entry:
        data = read_case(self.manifest, case, self.root, verify=True)
        if data.label is None:
            raise ManifestError(f"case {case.id} has no label; take it out of the fold, or add its label to cases.csv")
        prepared = prepare(data.image, self.settings, data.label)
        ready = training_case(case.id, prepared, self.manifest.dataset.labels)
        dims = ready.image.ndim - 1
        positions = np.concatenate([np.empty((0, dims), np.int32), *ready.positions])
        arrays = {"image": ready.image.numpy(), "label": _small(ready.label.numpy()), "positions": positions}
        return Entry(arrays, {"positions": [len(one) for one in ready.positions], "fill": ready.fill})


def prepared_cases(
    manifest: Manifest,
    cases: Sequence[Case],
    root: Path,
    settings: Preprocessing,
    cache: Cache,
    workers: int = 0,
    done: Callable[[int], None] = lambda count: None,
) -> PreparedCases:
    """Reads and prepares what the cache does not hold, in so many processes; `done` hears of each case.

    The bytes of every file are read: an entry is used only where they, the settings, the code and the libraries are
    those that it was made from. Raises what `read_case` and `prepare` raise, and WriteError where the cache is full.
    """
    preparation = _Preparation(manifest, cases, root, settings, cache)
    found = []
    for result in _each(preparation, workers):
        if isinstance(result, MedsegError):
            raise result
        cache.lease([result[1]])  # a worker's own lease may end with it
        found.append(result)
        done(1)
    return PreparedCases(cache, found)


def _each(preparation: _Preparation, workers: int) -> Iterator[tuple[str, str] | MedsegError]:
    """In order of the cases, whatever the number of workers."""
    yield from DataLoader(
        preparation,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=leave_signals_to_the_parent,
        generator=torch.Generator(),  # its own, so that the network's random numbers stay untouched
    )


def _as_it_is(result: Any) -> Any:
    return result


def _small(label: np.ndarray) -> np.ndarray:
    """The label in the smallest type that torch and the values allow."""
    for dtype in (np.uint8, np.int16):
        limits = np.iinfo(dtype)
        if label.size == 0 or (label.min() >= limits.min and label.max() <= limits.max):
            return label.astype(dtype)
    return label


@remembered
def _code_digest() -> str:
    """Of our own source that prepares cases: while it is being changed, its version says nothing."""
    home = Path(__file__).parents[1]
    files = sorted(file for room in _ROOMS for file in [home / room, *(home / room).rglob("*.py")] if file.is_file())
    sha = hashlib.sha256()
    for file in files:
        sha.update(f"{file.relative_to(home).as_posix()}\0{file_digest(file)}\0".encode())
    return sha.hexdigest()


@remembered
def _versions() -> dict[str, str]:
    """Of the libraries that are installed."""
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
