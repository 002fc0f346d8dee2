"""A prediction without an image: the usual label of each place, found by arithmetic."""

from __future__ import annotations

import numpy as np

from medseg.evaluation import usual_segmentation
from medseg.geometry import Geometry
from medseg.labels import Label, LabelSet
from medseg.volume import Segmentation

EXCLUSIVE = LabelSet(labels=(Label(name="head", value=2), Label(name="tail", value=5)))
OVERLAPPING = LabelSet(kind="overlapping", labels=EXCLUSIVE.labels)


def row(*values: int) -> Segmentation:
    """Labels along one axis of a picture that is one pixel wide."""
    return Segmentation(np.array([values], dtype=np.int16), Geometry.from_spacing((1, len(values)), (1, 1)), EXCLUSIVE)


def test_the_usual_label_is_that_of_most_cases() -> None:
    found = usual_segmentation([row(0, 2, 5, 5), row(0, 2, 2, 5), row(5, 5, 2, 0)], row(0, 0, 0, 0))
    assert found.array.tolist() == [[0, 2, 2, 5]]
    assert found.array.dtype == np.int16


def test_places_are_shares_of_a_case() -> None:
    """Four pixels on eight, and two on eight: each twice, and each four times."""
    assert usual_segmentation([row(0, 2, 5, 0)], row(*[0] * 8)).array.tolist() == [[0, 0, 2, 2, 5, 5, 0, 0]]
    assert usual_segmentation([row(0, 5)], row(*[0] * 8)).array.tolist() == [[0, 0, 0, 0, 5, 5, 5, 5]]


def test_overlapping_labels_are_where_more_than_half_have_them() -> None:
    geometry = Geometry.from_spacing((1, 2), (1, 1))
    known = [
        Segmentation(np.array(one, dtype=bool), geometry, OVERLAPPING)
        for one in ([[[1, 0]], [[1, 1]]], [[[1, 1]], [[0, 1]]])
    ]
    assert usual_segmentation(known, known[0]).array.tolist() == [[[True, False]], [[False, True]]]
