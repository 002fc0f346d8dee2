"""Which way left and right run through a patch, so that a flip can turn a left kidney into a right one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from medseg.data.patches import PatchSettings
    from medseg.data.preprocessing import Preprocessing
    from medseg.labels import LabelSet


class Laterality(NamedTuple):
    """The axis of a patch that runs between left and right, and the labels, some of which come in pairs."""

    axis: int
    labels: LabelSet


def laterality(preprocessing: Preprocessing, patch: PatchSettings, labels: LabelSet) -> Laterality | None:
    """None where no flip of a patch exchanges labels: there are no pairs, or left and right are slices apart."""
    axis = preprocessing.left_right_axis(len(patch.box))
    if not labels.has_pairs or axis is None or axis == patch.slice_axis:
        return None
    is_after_the_slices = patch.slice_axis is not None and patch.slice_axis < axis
    return Laterality(axis - is_after_the_slices, labels)
