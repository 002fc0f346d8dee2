"""A small data set whose scores are known by arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.evaluation import FailedCase, Scores, score
from medseg.geometry import Geometry
from medseg.labels import Label, LabelSet
from medseg.volume import Segmentation

LABELS = LabelSet(labels=(Label(name="core", value=1), Label(name="rim", value=2)), regions={"whole": ("core", "rim")})
GEOMETRY = Geometry.from_spacing((20, 5, 5), (1.0, 1.0, 2.0))


def _rods(core: slice | None, rim: slice | None) -> Segmentation:
    """Rods of 3 x 3 voxels along x."""
    array = np.zeros(GEOMETRY.shape, dtype=np.int32)
    for value, extent in ((1, core), (2, rim)):
        if extent is not None:
            array[extent, 1:4, 1:4] = value
    return Segmentation(array, GEOMETRY, LABELS)


@pytest.fixture(scope="session")
def scores() -> Scores:
    """Three scored cases and a failed one; Dice of core and rim, and their mean:

    good: 1, 1, 1. shifted, its core by 2 of 4 voxels: 0.5, 1, 0.75. missed, its rim: 1, 0, 0.5.
    """
    truth = _rods(slice(0, 4), slice(10, 14))
    cases = (
        score("good", truth, truth),
        score("shifted", _rods(slice(2, 6), slice(10, 14)), truth),
        score("missed", _rods(slice(0, 4), None), truth),
    )
    return Scores(LABELS, cases, (FailedCase("broken", "ReadError: file is damaged,\nfetch it again"),))
