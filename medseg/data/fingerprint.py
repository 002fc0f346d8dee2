"""What a data set looks like in numbers, from which a plan can be made and explained."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medseg.data.cases import read_case
from medseg.data.dataset import Case
from medseg.data.manifest import Manifest
from medseg.errors import ManifestError
from medseg.geometry import Geometry
from medseg.labels import LabelSet
from medseg.morphology import components

_SAMPLE = 10_000  # foreground values of a case and channel that enter the percentiles
_SIDES = (("left", "right"), ("Left", "Right"), ("lh", "rh"), ("_L", "_R"), ("_l", "_r"))


@dataclass(frozen=True)
class CaseFacts:
    """One case, axes in the order left-right, back-front, bottom-top for volumes, as they are for pictures."""

    case: str
    shape: tuple[int, ...]
    spacing: tuple[float, ...]  # mm, or 1 where a pixel knows no mm
    zero_share: tuple[float, ...]  # by channel: voxels that are exactly 0
    mean: tuple[float, ...]  # by channel, over the labels' voxels
    deviation: tuple[float, ...]
    voxels: tuple[int, ...]  # by label
    components: tuple[int, ...]  # by label: pieces that touch nowhere, not even at a corner


@dataclass(frozen=True)
class Fingerprint:
    """A data set: its cases, and over all of them the values inside labels."""

    cases: tuple[CaseFacts, ...]
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    percentiles: tuple[tuple[float, float, float], ...]  # by channel: the 0.5th, 50th and 99.5th inside labels
    likely_pairs: tuple[tuple[str, str], ...]  # labels whose names say left and right, but which name no `pair`

    @property
    def dims(self) -> int:
        return len(self.cases[0].shape)

    @property
    def spacings(self) -> np.ndarray:
        """`(N, dims)`."""
        return np.array([case.spacing for case in self.cases])

    @property
    def extents(self) -> np.ndarray:
        """`(N, dims)`: what each case covers, in the unit of its spacing."""
        return self.spacings * np.array([case.shape for case in self.cases])

    def content(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def fingerprint(
    manifest: Manifest, cases: Sequence[Case], root: Path, done: Callable[[int], None] = lambda count: None
) -> Fingerprint:
    """Reads every case. Raises what `read_case` raises, and ManifestError where there is no labelled case."""
    labels, channels = manifest.dataset.labels, manifest.dataset.channels
    facts, values = [], [list[np.ndarray]() for _ in channels]
    for case in cases:
        data = read_case(manifest, case, root)
        if data.label is None:
            continue
        of_case, inside = _facts(case.id, data.image.array, data.label.array, data.image.geometry, labels)
        facts.append(of_case)
        for kept, one in zip(values, inside, strict=True):
            kept.append(one)
        done(1)
    if not facts:
        raise ManifestError(f"{manifest.folder}: has no labelled case to plan from; add labels to cases.csv")
    pooled = [np.concatenate(one) for one in values]
    of_channels = tuple(_percentiles(one) for one in pooled)
    return Fingerprint(tuple(facts), channels, tuple(labels.names), of_channels, likely_pairs(labels))


def likely_pairs(labels: LabelSet) -> tuple[tuple[str, str], ...]:
    """Labels that are called left and right of the same, and name no pair."""
    names = {label.name for label in labels.labels if label.pair is None}
    found = []
    for name in sorted(names):
        for left, right in _SIDES:
            other = re.sub(re.escape(left), right, name, count=1)
            if other != name and other in names and (name, other) not in found:
                found.append((name, other))
    return tuple(found)


def _facts(
    case: str, image: np.ndarray, label: np.ndarray, geometry: Geometry, labels: LabelSet
) -> tuple[CaseFacts, list[np.ndarray]]:
    """The facts of a case, and a sample of each channel's values inside labels."""
    masks = [labels.mask(label, name) for name in labels.names]
    inside = np.any(masks, axis=0)
    samples = [_thinned(channel[inside].astype(np.float32)) for channel in image]
    shape, spacing = _in_body_order(geometry)
    whole = [one if one.size else np.zeros(1, np.float32) for one in samples]
    facts = CaseFacts(
        case,
        shape,
        spacing,
        tuple(float(np.mean(channel == 0)) for channel in image),
        tuple(float(one.mean()) for one in whole),
        tuple(float(one.std()) for one in whole),
        tuple(int(np.count_nonzero(mask)) for mask in masks),
        tuple(components(mask, "corners")[1] for mask in masks),
    )
    return facts, samples


def _in_body_order(geometry: Geometry) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Shape and spacing along R, A, S for a volume; as they are for a picture."""
    if geometry.dims == 2:
        return geometry.shape, tuple(geometry.spacing)
    from nibabel.orientations import io_orientation

    order = np.argsort(io_orientation(geometry.affine_4x4)[:, 0])
    return tuple(geometry.shape[axis] for axis in order), tuple(float(geometry.spacing[axis]) for axis in order)


def _thinned(values: np.ndarray) -> np.ndarray:
    return values[:: max(1, -(-values.size // _SAMPLE))]


def _percentiles(values: np.ndarray) -> tuple[float, float, float]:
    if not values.size:
        return 0.0, 0.0, 0.0
    low, middle, high = np.percentile(values, (0.5, 50, 99.5)).tolist()
    return low, middle, high
