"""A small data set whose scores are known by arithmetic."""

from __future__ import annotations

import numpy as np

from medseg.evaluation import CaseScores, FailedCase, Scores, score
from medseg.geometry import Geometry
from medseg.labels import Label, LabelSet
from medseg.volume import Segmentation

LABELS = LabelSet(labels=(Label(name="core", value=1), Label(name="rim", value=2)), regions={"whole": ("core", "rim")})
GEOMETRY = Geometry.from_spacing((20, 5, 5), (1.0, 1.0, 2.0))


def rods(core: slice | None, rim: slice | None) -> Segmentation:
    """Rods of 3 x 3 voxels along x: the core on one side, the rim beside it never meets it."""
    array = np.zeros(GEOMETRY.shape, dtype=np.int32)
    if core is not None:
        array[core, 1:4, 1:4] = 1
    if rim is not None:
        array[rim, 1:4, 1:4] = 2
    return Segmentation(array, GEOMETRY, LABELS)


def case(name: str, prediction: Segmentation, truth: Segmentation) -> CaseScores:
    return score(name, prediction, truth)


def data_set() -> Scores:
    """Three scored cases and a failed one.

    good: both labels right (Dice 1, 1); shifted: core shifted by 2 of 4 voxels (0.5), rim right (1); missed: core right
    (1), rim missed (0). Core: 1, 0.5, 1. Rim: 1, 1, 0. Foreground: 1, 0.75, 0.5.
    """
    truth = rods(slice(0, 4), slice(10, 14))
    cases = (
        case("good", truth, truth),
        case("shifted", rods(slice(2, 6), slice(10, 14)), truth),
        case("missed", rods(slice(0, 4), None), truth),
    )
    return Scores(LABELS, cases, (FailedCase("broken", "ReadError: file is damaged,\nfetch it again"),))
