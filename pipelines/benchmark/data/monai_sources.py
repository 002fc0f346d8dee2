"""MONAI's `CacheDataset`, tuned as its guides say, as a source of the same patches."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from monai.data import CacheDataset, DataLoader, ThreadDataLoader
from monai.transforms import (
    Compose,
    FgBgToIndicesd,
    RandAffined,
    RandCropByPosNegLabeld,
    RandGaussianNoised,
    RandScaleIntensityd,
    RandScaleIntensityFixedMeand,
    SqueezeDimd,
)
from torch.utils.data import RandomSampler

from medseg.data.augmentation import Affine, AugmentationConfig, Brightness, Contrast, Noise
from medseg.data.loaders import plain_tensors
from pipelines.benchmark.data.sources import ENDLESS, Batches, Draws, InMemory, Source

LIBRARY = "MONAI CacheDataset"
_KEYS = ["image", "label"]


def monai_sources(draws: Draws, cases: list[InMemory]) -> list[Source]:
    """One for `DataLoader` and one for `ThreadDataLoader`, which takes over batches in a thread of its own.

    Everything is in RAM, foreground and background indices included, and is not copied before it is cropped; metadata
    are not tracked; one sampler is endless, so that no epoch ends and no worker starts again. Transforms are MONAI's
    own with medseg's probabilities and sizes. A patch that shows no label's voxel in its centre shows one of the
    background, where medseg takes any place.
    """
    with plain_tensors():
        dataset = CacheDataset(
            [{"image": case.image, "label": case.label} for case in cases],
            Compose([FgBgToIndicesd("label"), *_random(draws)]),
            cache_rate=1.0,
            num_workers=0,
            copy_cache=False,  # no transform writes into what it is given
            progress=False,
        )
    return [_source(dataset, loader, draws) for loader in (DataLoader, ThreadDataLoader)]


def _source(dataset: CacheDataset, loader: type[DataLoader], draws: Draws) -> Source:
    def begin() -> Batches:
        with plain_tensors():  # in the workers, too, which begin as copies of this process
            yield from loader(
                dataset,
                batch_size=draws.batch_size,
                sampler=RandomSampler(dataset, num_samples=ENDLESS),
                num_workers=draws.workers,
                pin_memory=torch.cuda.is_available(),
            )

    return Source(LIBRARY, loader.__name__, begin)


def _random(draws: Draws) -> list[Any]:
    """What is done anew for each patch."""
    patch, share = draws.patch, draws.patch.foreground_share
    crop = RandCropByPosNegLabeld(
        _KEYS,
        "label",
        patch.box,
        pos=share,
        neg=1 - share,
        fg_indices_key="label_fg_indices",
        bg_indices_key="label_bg_indices",
    )
    flat = [] if patch.slice_axis is None else [SqueezeDimd(_KEYS, dim=patch.slice_axis + 1)]
    return [crop, *flat, *(_transform(step, draws.dims) for step in draws.augmentation)]


def _transform(step: AugmentationConfig, dims: int) -> Any:
    """MONAI's transform for one of medseg's settings."""
    match step:
        case Affine():
            return RandAffined(
                _KEYS,
                prob=step.probability,
                rotate_range=[float(np.deg2rad(step.rotate_degrees))] * (3 if dims == 3 else 1),
                scale_range=[step.scale] * dims,
                mode=["bilinear", "nearest"],
                padding_mode=["border", "zeros"],
            )
        case Brightness():
            return RandScaleIntensityd("image", factors=step.change, prob=step.probability)
        case Contrast():
            return RandScaleIntensityFixedMeand("image", factors=step.change, prob=step.probability)
        case Noise():
            return RandGaussianNoised("image", prob=step.probability, std=step.deviation, sample_std=True)
    raise ValueError(f"no transform of MONAI stands for {step.name}")
