"""MONAI's costliest random changes on plain tensors: theirs take most of a patch's time with what is not arithmetic."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from itertools import permutations
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

from medseg.data.domain_shift import RandLookd


class AffineRanges(NamedTuple):
    """Half-widths about no change: radians about each axis, parts of 1 for scale and shear, voxels."""

    rotation: float
    scale: float
    shear: float
    shift: float


class RandAffineMapd(RandomizableTransform, MapTransform):
    """Rotates, shears, scales and shifts a patch about its centre, each draw evenly within its range.

    The first key is interpolated linearly, its edge repeated outside; the others take the nearest voxel, and 0 outside.
    """

    def __init__(self, keys: KeysCollection, prob: float, ranges: AffineRanges) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.ranges = ranges

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return case
        first = case[self.keys[0]]
        dims = first.ndim - 1
        grid = _grid(self._matrix(dims), self._drawn(self.ranges.shift, dims), first)
        for key in self.key_iterator(case):
            ways = ("bilinear", "border") if key == self.keys[0] else ("nearest", "zeros")
            case[key] = _sampled(case[key], grid, *ways)
        return case

    def _matrix(self, dims: int) -> np.ndarray:
        """From a voxel of the result to one of the patch, both counted from the centre: `(dims, dims)`."""
        matrix = np.eye(dims)
        for plane, angle in zip(((1, 2), (0, 2), (0, 1)), self._drawn(self.ranges.rotation, 3), strict=True):
            if plane[1] < dims:
                matrix = matrix @ rotation(dims, plane, angle)
        shear = np.eye(dims)
        for place, amount in zip(
            permutations(range(dims), 2), self._drawn(self.ranges.shear, dims * (dims - 1)), strict=True
        ):
            shear[place] = amount
        return matrix @ shear @ np.diag(1 + self._drawn(self.ranges.scale, dims))

    def _drawn(self, width: float, count: int) -> np.ndarray:
        return self.R.uniform(-width, width, count)


class RandNoised(RandLookd):
    """Adds Gaussian noise of a standard deviation drawn evenly from 0 to `deviation`."""

    def __init__(self, keys: KeysCollection, prob: float, deviation: float) -> None:
        super().__init__(keys, prob)
        self.deviation = deviation

    def restyled(self, image: torch.Tensor) -> torch.Tensor:
        deviation, seed = self.R.uniform(0, self.deviation), int(self.R.randint(2**31))
        chance = torch.Generator(image.device).manual_seed(seed)
        noise = torch.randn(image.shape, generator=chance, dtype=image.dtype, device=image.device)
        return torch.add(image, noise, alpha=deviation)


def rotation(dims: int, plane: tuple[int, int], angle: float) -> np.ndarray:
    """By an angle in radians, from the first axis of the plane towards the second."""
    matrix = np.eye(dims)
    one, other = plane
    matrix[one, one] = matrix[other, other] = np.cos(angle)
    matrix[one, other], matrix[other, one] = -np.sin(angle), np.sin(angle)
    return matrix


def _grid(matrix: np.ndarray, shift: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """Where each voxel `(*S)` comes from, `(1, *S, dims)` as torch's grid_sample wants it: last axis first, -1 to 1."""
    sizes = like.shape[1:]
    axes = [torch.arange(size, device=like.device) - (size - 1) / 2 for size in sizes]
    found = torch.empty((1, *sizes, len(sizes)), device=like.device)
    for axis, size in enumerate(sizes):
        row, offset = matrix[axis] * 2 / size, shift[axis] * 2 / size
        parts = [
            _along(places * float(factor), number, len(sizes))
            for number, (places, factor) in enumerate(zip(axes, row, strict=True))
        ]
        found[0, ..., len(sizes) - 1 - axis] = sum(parts[1:], parts[0] + float(offset))
    return found


def _along(values: torch.Tensor, axis: int, dims: int) -> torch.Tensor:
    return values.view([-1 if one == axis else 1 for one in range(dims)])


def _sampled(array: torch.Tensor, grid: torch.Tensor, mode: str, outside: str) -> torch.Tensor:
    sampled = torch.nn.functional.grid_sample(
        array[None].float(), grid, mode=mode, padding_mode=outside, align_corners=False
    )
    return sampled[0]
