"""Endless batches of the same patches from one library or another, and how many samples a second each of them gives."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from medseg.data.augmentation import Affine, AugmentationConfig, Brightness, Contrast, Noise
from medseg.data.loaders import Patches, TrainingCase, batches
from medseg.data.monai_transforms import cut
from medseg.data.patches import PatchSettings

ENDLESS = 10_000_000  # draws that no measurement reaches
Batch = Mapping[str, Any]  # "image" (B, C, *S) and "label" (B, 1 or S, *S), both float32
Batches = Generator[Batch, None, None]  # endless; to close it ends its workers


@dataclass(frozen=True)
class Draws:
    """What every library draws: patches of these cases, in batches, changed in the same ways, by so many workers."""

    cases: Sequence[TrainingCase]
    patch: PatchSettings
    augmentation: tuple[AugmentationConfig, ...]
    batch_size: int
    workers: int
    seed: int = 0

    @property
    def dims(self) -> int:
        """Spatial axes of a patch."""
        return len(self.patch.size)


@dataclass(frozen=True)
class Source:
    """A way to get batches: a library, what it hands them over by, and how to begin."""

    library: str
    loader: str
    open: Callable[[], Batches]

    @property
    def name(self) -> str:
        """As it stands in a table."""
        return f"{self.library}, {self.loader}"


@dataclass(frozen=True)
class InMemory:
    """A case in RAM: image `(C, *S)` and label float32, padded to the size of a patch, and where each label lies."""

    image: torch.Tensor
    label: torch.Tensor
    positions: list[np.ndarray]


def has_equals(step: AugmentationConfig) -> bool:
    """Whether every library can do the same change; a shear or a shift not all can."""
    if isinstance(step, Affine):
        return not step.shear and not step.shift
    return isinstance(step, Brightness | Contrast | Noise)


def alike(draws: Draws) -> tuple[Draws, list[str]]:
    """The draws with what all libraries can do, and the names of what is left out of all of them."""
    kept = tuple(step for step in draws.augmentation if has_equals(step))
    left = [step.name for step in draws.augmentation if not has_equals(step)]
    left += ["patch.smaller"] if draws.patch.smaller else []
    return replace(draws, augmentation=kept, patch=draws.patch.model_copy(update={"smaller": ()})), left


def medseg_source(draws: Draws) -> Source:
    """medseg's own stream as a training reads it: cases are mapped from the cache, patches cut, padded and changed."""

    def begin() -> Batches:
        patches = Patches(draws.cases, draws.patch, draws.augmentation, draws.seed)
        yield from batches(patches, draws.batch_size, range(ENDLESS // draws.batch_size), draws.workers)

    return Source("medseg", "DataLoader", begin)


def in_memory(cases: Sequence[TrainingCase], box: Sequence[int]) -> list[InMemory]:
    """All cases as arrays: the libraries beside medseg read no file while they are timed, and pad nothing."""
    return [_padded(case, box) for case in cases]


def _padded(case: TrainingCase, box: Sequence[int]) -> InMemory:
    """Evenly on both sides, as medseg pads a patch."""
    shape = case.image.shape[1:]
    start = [min(0, (full - wanted) // 2) for full, wanted in zip(shape, box, strict=True)]
    size = [max(full, wanted) for full, wanted in zip(shape, box, strict=True)]
    image, label = cut(case.image, start, size, case.fill), cut(case.label, start, size, 0.0)
    return InMemory(image, label.float(), [np.asarray(places) - start for places in case.positions])


def samples_per_s(source: Source, draws: Draws, count: int) -> float:
    """Of `count` batches that are thrown away at once, after those that were under way before the clock started."""
    with closing(source.open()) as stream:
        for _ in range(2 + 3 * draws.workers):  # a loader prepares two ahead for each worker
            next(stream)
        begin = time.perf_counter()
        for _ in range(count):
            next(stream)
        return count * draws.batch_size / (time.perf_counter() - begin)
