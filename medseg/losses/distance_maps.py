"""Distances from voxels to the boundaries of labels, for losses that look at shapes."""

from __future__ import annotations

import numpy as np
import torch

from medseg import morphology


def to_other_side(inside: torch.Tensor, counted: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """Distance of each voxel to the nearest on the other side of each mask, `(B, K, *S)`, in voxels.

    `inside` is bool `(B, K, *S)`; the other side of a voxel inside is outside, and the reverse. Distances run between
    voxel centres of the grid that the network sees: preprocessing decides how many mm these are, deep supervision
    counts them on its coarser grids. Voxels that are not `counted` `(B, 1, *S)` are on neither side: they have distance
    0, and no distance runs to them. Where a patch has one side only, all distances are 0. Computed on the CPU, without
    gradient.
    """
    masks = inside.detach().cpu().numpy()
    known = np.ones_like(masks[:, :1]) if counted is None else counted.cpu().numpy()
    maps = [[_of_mask(mask, known[patch, 0]) for mask in masks[patch]] for patch in range(len(masks))]
    return torch.from_numpy(np.array(maps)).to(dtype).to(inside.device)


def _of_mask(mask: np.ndarray, known: np.ndarray) -> np.ndarray:
    inside, outside = mask & known, ~mask & known
    if not inside.any() or not outside.any():
        return np.zeros(mask.shape)
    spacing = (1.0,) * mask.ndim
    to_inside, to_outside = morphology.distance_to(inside, spacing), morphology.distance_to(outside, spacing)
    return np.where(known, np.where(mask, to_outside, to_inside), 0.0)
