"""How many voxels each label has in the training cases, and the weights that make up for rare ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat

import numpy as np

from medseg.labels import LabelSet


@dataclass(frozen=True)
class VoxelCounts:
    """Voxels inside and outside each network output that are not ignored; background first where exclusive."""

    inside: tuple[int, ...]
    outside: tuple[int, ...]
    is_exclusive: bool


def count_voxels(
    cases: Iterable[np.ndarray], labels: LabelSet, annotated: Iterable[Sequence[bool]] | None = None
) -> VoxelCounts:
    """The counts over the labels of cases, each `(1, *S)` values or `(S, *S)` booleans.

    `annotated` tells for each case which outputs were looked for. The others are not counted there, nor is a background
    in which they may lie.
    """
    inside, total = np.zeros(labels.channels, dtype=np.int64), np.zeros(labels.channels, dtype=np.int64)
    for label, row in zip(cases, annotated or repeat([True] * labels.channels)):  # noqa: B905 - one may be endless
        looked = np.array(row)
        if labels.is_exclusive:
            looked[0] = looked.all()
        found = [label[0] == value for value in labels.values] if labels.is_exclusive else list(label != 0)
        counted = label[0].size if labels.ignore is None else np.count_nonzero(label[0] != labels.ignore)
        total += np.where(looked, counted, 0)
        inside += np.where(looked, [np.count_nonzero(mask) for mask in found], 0)
    return VoxelCounts(tuple(inside.tolist()), tuple((total - inside).tolist()), labels.is_exclusive)


def inverse_frequency(counts: VoxelCounts) -> tuple[float, ...]:
    """A weight an output that gives every label the same total: 1 / voxels, with mean 1.

    For overlapping labels, voxels outside / inside, for outside a label weighs 1. An output without voxels, and a label
    without any outside, weighs 1.
    """
    return _relative(counts, np.asarray(counts.inside, float), np.asarray(counts.outside, float))


def effective_number(counts: VoxelCounts, beta: float) -> tuple[float, ...]:
    """As `inverse_frequency`, with the effective number of voxels (1 - beta^n) / (1 - beta) in place of their number.

    So n voxels count as n while they are few against 1 / (1 - beta), and as that many at most: neighbouring voxels say
    the same (Cui et al., CVPR 2019). beta = 0 weighs all labels alike; beta -> 1 gives the inverse frequency.
    """
    inside, outside = (_effective(np.asarray(side, float), beta) for side in (counts.inside, counts.outside))
    return _relative(counts, inside, outside)


def _effective(voxels: np.ndarray, beta: float) -> np.ndarray:
    if beta == 0:
        return np.minimum(voxels, 1.0)
    return np.expm1(voxels * np.log(beta)) / (beta - 1)


def _relative(counts: VoxelCounts, inside: np.ndarray, outside: np.ndarray) -> tuple[float, ...]:
    present = inside > 0 if counts.is_exclusive else (inside > 0) & (outside > 0)
    share = (1.0 if counts.is_exclusive else outside) / np.where(present, inside, 1.0)
    if counts.is_exclusive:
        share = share / share[present].mean() if present.any() else share
    return tuple(np.where(present, share, 1.0).tolist())
