"""A prediction that never looks at the image, so that what crops have in common is not taken for learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from medseg.volume import Segmentation


def usual_segmentation(known: Sequence[Segmentation], on: Segmentation) -> Segmentation:
    """At each place of `on`'s grid the label that most of the known cases have there; of equal ones the first.

    Places are shares of a case's length along each axis, since cases differ in size. Overlapping labels are where more
    than half of the cases have them.
    """
    labels, shape = on.labels, on.geometry.shape
    if not labels.is_exclusive:
        share = np.mean([_stretched(one.array, shape) for one in known], axis=0)
        return replace(on, array=share > 0.5)
    votes = np.zeros((len(labels.values), *shape), dtype=np.int32)
    for one in known:
        placed = _stretched(one.array, shape)
        for vote, value in zip(votes, labels.values, strict=True):
            vote += placed == value
    usual = np.asarray(labels.values)[votes.argmax(axis=0)]
    return replace(on, array=usual.astype(on.array.dtype))


def _stretched(array: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """An array `(..., *S)` on a grid of another size, each place from the nearest one."""
    old = array.shape[-len(shape) :]
    places = [np.arange(new) * have // new for new, have in zip(shape, old, strict=True)]
    leading = [np.arange(size) for size in array.shape[: -len(shape)]]
    return array[np.ix_(*leading, *places)]
