"""Moves an array from one grid to another through world coordinates: one map for every pair of grids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch

from medseg.geometry import Geometry

Mode = Literal["linear", "nearest"]
_SLAB_VOXELS = 4_000_000  # target voxels at a time: 3 float32 coordinates each stay below 50 MB


def resample(
    array: np.ndarray, source: Geometry, target: Geometry, mode: Mode = "linear", fill: float | Sequence[float] = 0.0
) -> np.ndarray:
    """`(C, *source.shape)` -> `(C, *target.shape)`, float32 for linear, the dtype of `array` for nearest.

    A target voxel takes the value at its centre's place in the source grid. Where that lies more than half a voxel
    outside, it takes `fill` (one value, or one a channel); within that half voxel the border value holds. Grids that
    differ by whole voxels, flips and axis order only are copied exactly, without interpolation.
    """
    to_source = np.linalg.inv(source.affine) @ target.affine
    fills = np.broadcast_to(np.asarray(fill, dtype=np.float32), (array.shape[0],))
    kept = np.dtype(np.float32) if mode == "linear" else array.dtype
    if _is_whole(to_source, target.shape):
        return _copy(array, np.rint(to_source).astype(int), target.shape, fills).astype(kept, copy=False)
    values = torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))[None]
    result = np.empty((array.shape[0], *target.shape), dtype=np.float32)
    step = max(1, _SLAB_VOXELS // int(np.prod(target.shape[1:])))
    for start in range(0, target.shape[0], step):
        rows = range(start, min(start + step, target.shape[0]))
        result[:, rows.start : rows.stop] = _interpolate(values, to_source, rows, target.shape, mode, fills)
    return result.astype(kept, copy=False)


def _is_whole(to_source: np.ndarray, shape: tuple[int, ...]) -> bool:
    """Whether a voxel map only flips and swaps axes and shifts by whole voxels, to a hundredth at the far corner."""
    whole = np.rint(to_source)
    drift = np.abs(to_source - whole) @ np.array([*shape, 1])  # a small difference of spacing adds up along an axis
    return bool(drift.max() < 1e-2 and abs(np.linalg.det(whole)) > 0.5) and bool(
        (np.abs(whole[:-1, :-1]).sum(axis=0) == 1).all()
    )


def _copy(array: np.ndarray, to_source: np.ndarray, shape: tuple[int, ...], fills: np.ndarray) -> np.ndarray:
    """The exact map: source axis i runs along target axis axes[i], forwards or backwards, from an offset."""
    dims = len(shape)
    axes = [int(np.argmax(np.abs(to_source[i, :dims]))) for i in range(dims)]
    result = np.empty((array.shape[0], *shape), dtype=array.dtype)
    for channel, value in enumerate(fills):
        result[channel] = value
    into: list[slice] = [slice(None)] * (dims + 1)
    taken: list[np.ndarray | slice] = [slice(None)]
    for i in range(dims):
        indices = to_source[i, axes[i]] * np.arange(shape[axes[i]]) + to_source[i, dims]
        inside = np.flatnonzero((indices >= 0) & (indices < array.shape[i + 1]))
        if inside.size == 0:
            return result
        into[axes[i] + 1] = slice(int(inside[0]), int(inside[-1]) + 1)
        taken.append(indices[inside])
    block = array
    for axis, indices_or_all in enumerate(taken):
        if axis > 0:
            block = np.take(block, np.asarray(indices_or_all), axis=axis)
    order = [0, *(1 + axes.index(axis) for axis in range(dims))]
    result[tuple(into)] = block.transpose(order)
    return result


def _interpolate(
    values: torch.Tensor, to_source: np.ndarray, rows: range, shape: tuple[int, ...], mode: Mode, fills: np.ndarray
) -> np.ndarray:
    """Some rows (first axis) of the target, `(C, len(rows), *shape[1:])`."""
    dims = len(shape)
    axes = [torch.arange(rows.start, rows.stop), *(torch.arange(size) for size in shape[1:])]
    index = torch.stack(torch.meshgrid(*[axis.double() for axis in axes], indexing="ij"), dim=-1)
    matrix = torch.from_numpy(to_source)
    places = index @ matrix[:dims, :dims].T + matrix[:dims, dims]
    sizes = torch.tensor(values.shape[2:], dtype=torch.double)
    outside = ((places < -0.5 - 1e-6) | (places > sizes - 0.5 + 1e-6)).any(dim=-1)
    normalised = places / (sizes - 1).clamp(min=1) * 2 - 1
    grid = normalised.flip(-1).float()[None]  # grid_sample counts its last axis first
    kind = "bilinear" if mode == "linear" else "nearest"
    sampled = torch.nn.functional.grid_sample(values, grid, mode=kind, padding_mode="border", align_corners=True)[0]
    for channel, value in enumerate(fills.tolist()):
        sampled[channel][outside] = value
    return sampled.numpy()
