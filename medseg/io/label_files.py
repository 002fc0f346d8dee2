"""Turns what a file holds into labels of a LabelSet, exactly or not at all."""

from __future__ import annotations

import numpy as np

from medseg.errors import LabelError
from medseg.io.checks import as_integers
from medseg.labels import LabelSet
from medseg.volume import Segmentation, Volume


def as_segmentation(volume: Volume, labels: LabelSet) -> Segmentation:
    """The labels that a volume's values stand for.

    An exclusive set needs one channel of values that it knows, an overlapping one a channel of 0 and 1 for each label,
    in the order of the set. Raises LabelError.
    """
    where = volume.provenance.source
    expected = 1 if labels.is_exclusive else len(labels.labels)
    if volume.channels != expected:
        raise LabelError(f"{where}: {_wrong_channels(volume.channels, labels)}")
    array = as_integers(volume.array, where)
    labels.check(array, where)
    array = array[0] if labels.is_exclusive else array.astype(np.bool_)
    return Segmentation(array, volume.geometry, labels, volume.provenance)


def _wrong_channels(channels: int, labels: LabelSet) -> str:
    if labels.is_exclusive:
        return (
            f"holds {channels} channels, as one-hot or colour files do, but its label set is exclusive; "
            "store one channel of integers, or set kind: overlapping in dataset.yaml"
        )
    return (
        f"holds {channels} channels for {len(labels.labels)} overlapping labels ({', '.join(labels.names)}); "
        "store one channel of 0 and 1 for each, or set kind: exclusive in dataset.yaml"
    )
