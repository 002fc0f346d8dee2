"""Tells labels that were saved for looking at, not for learning: interpolated, one-hot, coloured."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg.io import read_image
from medseg.io.checks import INTEGER_TOLERANCE
from medseg.io.formats import format_of
from medseg.volume import Volume

_FEW = 16  # fewer values than this may well be structures
_TOGETHER = 0.6  # share of voxels with two equal neighbours or more: structures are blobs, edges of grey are not


def read_label_values(path: Path) -> Volume:
    """The values that a label file holds, before any label set judges them: a palette's indices, not its colours."""
    if path.is_file() and format_of(path) == "picture":
        from medseg.io.picture_files import read_picture_label

        return read_picture_label(path)
    return read_image(path)


def label_form_problem(array: np.ndarray) -> str | None:
    """What is wrong with the form of a label `(C, *S)` as a file holds it, or None."""
    if array.shape[0] > 1:
        return _channels_problem(array)
    if array.dtype.kind == "f":
        strange = array[~(np.abs(array - np.rint(array)) <= INTEGER_TOLERANCE)]
        if strange.size:
            kind = "not finite" if not np.isfinite(strange).all() else f"not whole numbers (such as {strange[0]:.4g})"
            return f"{strange.size} of its values are {kind}: it was interpolated; resample labels with nearest"
    if array.size and array.min() < 0:
        return f"it holds the negative value {array.min():g}; labels count from 0"
    values, counts = np.unique(array, return_counts=True)
    if values.size > _FEW and _is_grey(array[0], values[np.argsort(counts)[:-2]]):
        return (
            f"its {values.size} values lie along edges only, so it was interpolated or saved with loss; "
            "save labels without resizing or JPEG, or threshold it"
        )
    return None


def _channels_problem(array: np.ndarray) -> str:
    """Several channels: one for each label, or colours."""
    count = array.shape[0]
    binary = bool(np.isin(array, (0, 1, 255)).all())
    if binary and (np.count_nonzero(array, axis=0) == 1).all():
        return f"it is one-hot ({count} channels, one set in each voxel); save the index of the channel instead"
    if count in (3, 4):
        return f"it holds colours ({count} channels); save one integer a voxel, not a palette's colours"
    return f"it has {count} channels; a label has one integer a voxel"


def _is_grey(array: np.ndarray, rare: np.ndarray) -> bool:
    """Whether the rarer values hardly ever touch their like, as the grey seams of resized or JPEG pictures."""
    seldom = np.isin(array, rare)
    if not seldom.any():
        return False
    alike = np.zeros(array.shape, dtype=np.uint8)
    for axis in range(array.ndim):
        near = np.moveaxis(array, axis, 0)
        same = near[1:] == near[:-1]
        counted = np.moveaxis(alike, axis, 0)
        counted[1:] += same
        counted[:-1] += same
    return bool((alike[seldom] >= 2).mean() < _TOGETHER)
