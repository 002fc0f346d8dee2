"""The dictionary transforms that MONAI does not have, written to its rules so that they compose with its own."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

from medseg.data.intensity import IntensityConfig, Scale, measure_scales
from medseg.data.laterality import Laterality
from medseg.errors import DataError

SCALES = "intensity_scales"
POSITIONS, FILL, LATERALITY = "label_positions", "fill", "laterality"


class MeasureScalesd(MapTransform):
    """Measures the intensity constants on the whole source image `(C, *S)`, before any crop or resampling."""

    def __init__(self, keys: KeysCollection, steps: Sequence[IntensityConfig]) -> None:
        super().__init__(keys)
        self.steps = tuple(steps)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        return {**data, SCALES: measure_scales(np.asarray(data[self.keys[0]]), self.steps)}


class ApplyScalesd(MapTransform):
    """Applies the measured constants point by point."""

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        scales: list[list[Scale]] = case.pop(SCALES)
        image = case[self.keys[0]]
        for index, chain in enumerate(scales):
            for scale in chain:
                image[index] = scale(image[index])
        return case


class RandLabelCropd(RandomizableTransform, MapTransform):
    """Cuts a patch of `size`; a share of the draws is centred on a voxel of a label, drawn evenly among those present.

    Voxels are looked up in `data["label_positions"]`, one array `(N, dims)` a label: no label is searched twice.
    An image smaller than the patch is padded first, evenly on both sides, with `data["fill"]` and label 0.
    """

    def __init__(self, keys: KeysCollection, size: Sequence[int], foreground_share: float) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, 1.0)
        self.size, self.foreground_share = tuple(size), foreground_share

    def randomize(self, shape: Sequence[int], positions: Sequence[np.ndarray]) -> list[int]:  # type: ignore[override]
        """The first voxel of the patch; negative where padding comes first."""
        room = [full - size for full, size in zip(shape, self.size, strict=True)]
        present = [places for places in positions if len(places)]
        wants_label = self.R.random() < self.foreground_share
        choice, fractions = self.R.random(2), self.R.random(len(self.size))
        if wants_label and present:
            places = present[int(choice[0] * len(present))]
            centre = places[int(choice[1] * len(places))]
            wanted = [int(c) - size // 2 for c, size in zip(centre, self.size, strict=True)]
            return [min(max(w, 0), r) if r >= 0 else r // 2 for w, r in zip(wanted, room, strict=True)]
        return [int(f * (r + 1)) if r >= 0 else r // 2 for f, r in zip(fractions, room, strict=True)]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        positions, fill = case.pop(POSITIONS), case.pop(FILL)
        start = self.randomize(case[self.keys[0]].shape[1:], positions)
        for key in self.key_iterator(case):
            case[key] = cut(case[key], start, self.size, fill if key == "image" else 0.0)
        return case


def cut(array: torch.Tensor, start: Sequence[int], size: Sequence[int], fill: float) -> torch.Tensor:
    """`(C, *S)` -> a copy of `(C, *size)` from voxel `start`; what lies outside is `fill`."""
    ends = [first + extent for first, extent in zip(start, size, strict=True)]
    inner = tuple(slice(max(first, 0), end) for first, end in zip(start, ends, strict=True))
    block = array[(slice(None), *inner)]
    before = [max(-first, 0) for first in start]
    after = [extent - b - got for extent, b, got in zip(size, before, block.shape[1:], strict=True)]
    if not any(before) and not any(after):
        return block.clone()
    margins = [margin for pair in reversed(list(zip(before, after, strict=True))) for margin in pair]
    return torch.nn.functional.pad(block, margins, value=fill)


class RandMirrord(RandomizableTransform, MapTransform):
    """Flips an axis; where `data["laterality"]` says that it runs between left and right, a label becomes its pair."""

    def __init__(self, keys: KeysCollection, prob: float, axis: int) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.axis = axis

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return case
        for key in self.key_iterator(case):
            case[key] = case[key].flip(self.axis + 1)
        laterality: Laterality | None = case.get(LATERALITY)
        if laterality is not None and laterality.axis == self.axis and "label" in case:
            case["label"] = laterality.labels.exchanged(case["label"])
        return case


class RandResizedCropd(RandomizableTransform, MapTransform):
    """Cuts a box of a random share of the patch at a random place and stretches it back to the patch's size."""

    def __init__(self, keys: KeysCollection, prob: float, share: tuple[float, float]) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.share = share

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return case
        full = case[self.keys[0]].shape[1:]
        sizes = [max(1, round(self.R.uniform(*self.share) * extent)) for extent in full]
        starts = [self.R.randint(0, extent - size + 1) for extent, size in zip(full, sizes, strict=True)]
        for key in self.key_iterator(case):
            mode = "nearest-exact" if key == "label" else {1: "bilinear", 2: "trilinear"}[len(full) - 1]
            align = None if key == "label" else False
            box = cut(case[key], starts, sizes, 0.0)[None].float()
            case[key] = torch.nn.functional.interpolate(box, tuple(full), mode=mode, align_corners=align)[0]
        return case


class RandColourd(RandomizableTransform, MapTransform):
    """Changes saturation and each channel's gain of an RGB image `(3, *S)`, as stains and cameras do."""

    def __init__(self, keys: KeysCollection, prob: float, saturation: float, gain: float) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.saturation, self.gain = saturation, gain

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return case
        saturation = 1 + self.R.uniform(-self.saturation, self.saturation)
        gains = 1 + self.R.uniform(-self.gain, self.gain, size=3)
        for key in self.key_iterator(case):
            image = case[key]
            if image.shape[0] != 3:
                raise DataError(
                    f"augmentation 'colour' needs 3 channels (RGB), this image has {image.shape[0]}; drop it"
                )
            grey = image.mean(dim=0, keepdim=True)
            mixed = grey + (image - grey) * saturation
            case[key] = mixed * torch.as_tensor(gains, dtype=mixed.dtype).view(3, *[1] * (mixed.ndim - 1))
        return case
