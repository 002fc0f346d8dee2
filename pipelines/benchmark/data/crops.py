"""How long it takes to cut a piece from a large volume on disk: as medseg keeps it, as a bare array, as NIfTI."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import nibabel
import numpy as np

from medseg.data.cache import Cache
from medseg.data.dataset import Case, DatasetInfo
from medseg.data.manifest import Manifest
from medseg.data.monai_transforms import cut
from medseg.data.phantoms import PHANTOM_LABELS, phantom
from medseg.data.prepared_cases import PreparedCases, prepared_cases
from medseg.data.preprocessing import Preprocessing
from medseg.devices import threads
from medseg.io import write_nifti
from pipelines.benchmark.data.rounds import Comparison, in_rounds
from pipelines.console import Console

PHANTOMS = DatasetInfo(
    name="phantoms", version="1", licence="CC0-1.0", source="generated", channels=("MR",), labels=PHANTOM_LABELS
)
_LIMIT_BYTES = 10**12
_IMAGE, _LABEL, _BARE = "image.nii.gz", "label.nii.gz", "image.npy"
Crop = Callable[[Sequence[int]], np.ndarray]  # the first voxel -> the piece, a copy in memory, float32


@dataclass(frozen=True)
class LargeVolume:
    """One volume in a folder, three times: as a file of its own, in a cache of prepared cases, and as a bare array."""

    folder: Path
    prepared: PreparedCases
    shape: tuple[int, ...]
    size: tuple[int, ...]  # of the piece

    @classmethod
    def made(cls, folder: Path, shape: tuple[int, int, int], size: tuple[int, ...]) -> LargeVolume:
        """Writes a phantom as int16 `.nii.gz`, and prepares it as `medseg train` does."""
        folder.mkdir()
        image, label = phantom(0, shape)
        write_nifti(image, folder / _IMAGE)
        write_nifti(label, folder / _LABEL)
        case = Case("large", "large", None, (_IMAGE,), _LABEL)
        manifest = Manifest(PHANTOMS, (case,), folder)
        cache = Cache(folder / "cache", _LIMIT_BYTES)
        prepared = prepared_cases(manifest, manifest.cases, folder, Preprocessing(), cache)
        np.save(folder / _BARE, prepared[0].image[0].numpy())
        return cls(folder, prepared, tuple(prepared[0].image.shape[1:]), size)

    def from_cache(self) -> Crop:
        """Of the case mapped anew from medseg's cache, by the function that cuts patches."""
        case = PreparedCases(self.prepared.cache, self.prepared.cases)[0]
        return lambda start: np.asarray(cut(case.image, start, self.size, case.fill)[0].numpy())

    def from_bare(self) -> Crop:
        """Of the same values in a bare `.npy`, mapped anew: there is no shorter way from a file."""
        array = np.load(self.folder / _BARE, mmap_mode="r")
        return lambda start: np.array(array[self._place(start)])

    def from_nifti(self) -> Crop:
        """Of the `.nii.gz`, its header read before: nibabel unpacks no more of the file than it needs."""
        image = nibabel.Nifti1Image.from_filename(self.folder / _IMAGE)
        return lambda start: np.asarray(image.dataobj[self._place(start)], np.float32)

    def _place(self, start: Sequence[int]) -> tuple[slice, ...]:
        return tuple(slice(first, first + extent) for first, extent in zip(start, self.size, strict=True))

    def milliseconds(self, crop: Crop, count: int, chance: np.random.Generator) -> float:
        """The median over `count` pieces at random places, by one thread."""
        found = []
        with threads(1):
            for _ in range(count):
                room = [full - extent for full, extent in zip(self.shape, self.size, strict=True)]
                start = [int(chance.integers(most + 1)) for most in room]
                begin = time.perf_counter()
                crop(start)
                found.append(1000 * (time.perf_counter() - begin))
        return median(found)


def crop_times(volume: LargeVolume, count: int, rounds: int, console: Console) -> list[Comparison]:
    """Milliseconds of one piece by each way, all from files that the system holds in memory since they were written.

    In every round each way opens its file anew, outside the clock, and cuts at the same random places.
    """
    ways = {"cache": volume.from_cache, "bare array": volume.from_bare, ".nii.gz": volume.from_nifti}
    begun = dict.fromkeys(ways, 0)

    def measure(name: str) -> float:
        begun[name] += 1
        return volume.milliseconds(ways[name](), count, np.random.default_rng(begun[name]))

    sides = {name: lambda name=name: measure(name) for name in ways}
    ours, bare, nifti = in_rounds(console, "crops", sides, rounds).values()
    what = f"crop of {by_times(volume.size)} from {by_times(volume.shape)} on disk"
    return [
        Comparison(what, "ms", ours, "memory-mapped .npy", bare),
        Comparison(what, "ms", ours, ".nii.gz by nibabel", nifti),
    ]


def by_times(size: Sequence[int]) -> str:
    """ "128 x 128 x 96"."""
    return " x ".join(map(str, size))
