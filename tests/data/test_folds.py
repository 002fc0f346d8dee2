"""Folds are the same everywhere, and those of nnU-Net where that is promised."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from medseg.data.folds import assign_folds
from medseg.data.manifest import read_manifest
from medseg.errors import ManifestError

SHIPPED = Path(__file__).resolve().parents[2] / "data_manifests"


@pytest.mark.parametrize(("patients", "folds", "seed"), [(260, 5, 12345), (11, 3, 0), (7, 7, 5)])
def test_folds_are_those_of_scikit_learn(patients: int, folds: int, seed: int) -> None:
    selection = pytest.importorskip("sklearn.model_selection")
    names = [f"p{number:03d}" for number in range(patients)]
    expected = {}
    splits = selection.KFold(folds, shuffle=True, random_state=seed).split(names)
    for fold, (_, validation) in enumerate(splits):
        expected.update({names[index]: fold for index in validation})
    assert assign_folds(reversed(names), folds, seed) == expected


def test_fold_sizes_differ_by_one_at_most() -> None:
    counts = Counter(assign_folds([f"p{number}" for number in range(23)], 5).values())
    assert sorted(counts.values()) == [4, 4, 5, 5, 5]


def test_a_patient_with_many_cases_has_one_fold() -> None:
    assert assign_folds(["a", "b", "a", "c", "a"], 3).keys() == {"a", "b", "c"}


@pytest.mark.parametrize("folds", [1, 4])
def test_more_folds_than_patients_are_refused(folds: int) -> None:
    with pytest.raises(ManifestError, match="give --folds 2 to 3, or 0"):
        assign_folds(["a", "b", "c"], folds)


def test_shipped_folds_are_nnunets_own() -> None:
    """Fold 0's ids are not shipped; striking its places from the rule's list must leave the 208 others' folds."""
    rule = np.array([fold for _, fold in sorted(assign_folds(f"{number:03d}" for number in range(260)).items())])
    shipped = [case.fold for case in read_manifest(SHIPPED / "hippocampus").cases]
    assert shipped == rule[rule != 0].tolist()
