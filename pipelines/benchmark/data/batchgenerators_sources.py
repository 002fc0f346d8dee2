"""nnU-Net's augmentation, `batchgeneratorsv2`, as a source of the same patches."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from queue import Empty
from typing import Any

import numpy as np
import torch
from batchgenerators.dataloading.data_loader import SlimDataLoaderBase
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import ContrastTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from torch.utils.data import DataLoader, Dataset, RandomSampler

from medseg.data.augmentation import Affine, AugmentationConfig, Brightness, Contrast, Noise
from pipelines.benchmark.data.sources import ENDLESS, Batches, Draws, InMemory, Source

LIBRARY = "batchgeneratorsv2"
_CACHED = 6  # batches that are ready, and
_POLL_S = 0.002  # how often a full queue is looked at: both as nnU-Net sets them
_LAST_BATCH_S = 1.0  # for a process to finish what it has begun


def batchgenerators_sources(draws: Draws, cases: list[InMemory]) -> list[Source]:
    """One for torch's `DataLoader` and, with workers, one for `NonDetMultiThreadedAugmenter`, which nnU-Net uses.

    Arrays are in RAM, and a patch is cut by the rule that medseg cuts by. The transforms are the library's own, with
    medseg's probabilities and sizes: rotation and scaling in one interpolation of the patch, linear for the image and
    nearest for the label, which is its fastest.
    """
    dataset = _Cut(draws, cases)
    found = [Source(LIBRARY, "DataLoader", lambda: _by_torch(dataset, draws))]
    if draws.workers:
        found.append(Source(LIBRARY, "NonDetMultiThreadedAugmenter", lambda: _by_processes(dataset, draws)))
    return found


def _by_torch(dataset: _Cut, draws: Draws) -> Batches:
    yield from DataLoader(
        dataset,
        batch_size=draws.batch_size,
        sampler=RandomSampler(dataset, num_samples=ENDLESS),
        num_workers=draws.workers,
        pin_memory=torch.cuda.is_available(),
    )


def _by_processes(dataset: _Cut, draws: Draws) -> Batches:
    loader = _WholeBatches(dataset, draws.batch_size)
    settings = {"num_cached": _CACHED, "wait_time": _POLL_S, "pin_memory": torch.cuda.is_available()}
    augmenter = NonDetMultiThreadedAugmenter(loader, None, draws.workers, **settings)
    try:
        yield from augmenter
    finally:
        augmenter.pause_event.set()
        with suppress(Empty):  # batches under way are taken while the processes live whose memory they lie in
            while True:
                augmenter.results_loop_queue.get(timeout=_LAST_BATCH_S)
        augmenter._finish()  # its only way to end the processes, which nnU-Net calls too


class _Cut(Dataset[dict[str, torch.Tensor]]):
    """A patch of a case by its number, changed at random."""

    def __init__(self, draws: Draws, cases: list[InMemory]) -> None:
        self.patch, self.cases = draws.patch, cases
        self.change = ComposeTransforms([_transform(step, draws.patch.size) for step in draws.augmentation])

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        case, box, axis = self.cases[number], self.patch.box, self.patch.slice_axis
        start = _start(case, box, self.patch.foreground_share)
        place = (slice(None), *(slice(first, first + size) for first, size in zip(start, box, strict=True)))
        image, label = case.image[place], case.label[place]
        if axis is not None:
            image, label = image.squeeze(axis + 1), label.squeeze(axis + 1)
        found = self.change(image=image.clone(), segmentation=label.clone())  # the transforms write into what they get
        return {"image": found["image"], "label": found["segmentation"]}


class _WholeBatches(SlimDataLoaderBase):
    """The same patches as whole batches, which is how the library's own loader wants them."""

    def generate_train_batch(self) -> dict[str, torch.Tensor]:
        patches = [self._data[number] for number in np.random.randint(len(self._data), size=(self.batch_size,))]
        return {key: torch.stack([patch[key] for patch in patches]) for key in ("image", "label")}


def _start(case: InMemory, box: Sequence[int], foreground_share: float) -> list[int]:
    """The first voxel of a patch: about a voxel of a label in a share of the draws, anywhere in the others."""
    room = [full - size for full, size in zip(case.image.shape[1:], box, strict=True)]
    present = [places for places in case.positions if len(places)]
    if present and np.random.random() < foreground_share:
        places = present[np.random.randint(len(present))]
        centre = places[np.random.randint(len(places))]
        wanted = [int(one) - size // 2 for one, size in zip(centre, box, strict=True)]
        return [min(max(one, 0), most) for one, most in zip(wanted, room, strict=True)]
    return [int(np.random.randint(most + 1)) for most in room]


def _transform(step: AugmentationConfig, size: tuple[int, ...]) -> Any:
    """The library's transform for one of medseg's settings."""
    match step:
        case Affine():
            turn = float(np.deg2rad(step.rotate_degrees))
            change: Any = SpatialTransform(
                size,
                patch_center_dist_from_border=0,
                random_crop=False,
                p_rotation=1,
                rotation=(-turn, turn),
                p_scaling=1,
                scaling=(1 - step.scale, 1 + step.scale),
                mode_seg="nearest",
                padding_mode_image="border",
            )
        case Brightness():
            change = MultiplicativeBrightnessTransform((1 - step.change, 1 + step.change), synchronize_channels=True)
        case Contrast():
            spread = (1 - step.change, 1 + step.change)
            change = ContrastTransform(spread, preserve_range=False, synchronize_channels=True)
        case Noise():  # what the library calls variance is the deviation that it multiplies normal numbers by
            change = GaussianNoiseTransform((0, step.deviation), synchronize_channels=True)
        case _:
            raise ValueError(f"no transform of {LIBRARY} stands for {step.name}")
    return RandomTransform(change, step.probability)
