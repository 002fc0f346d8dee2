"""Voxel counts and ratios with answers known by arithmetic, and scikit-learn's confusion matrix as a reference."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score
from sklearn.metrics import confusion_matrix as reference_confusion

from medseg.geometry import Geometry
from medseg.labels import Label, LabelSet
from medseg.metrics import Counts, confusion_matrix, pixel_accuracy
from medseg.volume import Segmentation

LABELS = LabelSet(labels=(Label(name="low", value=2), Label(name="high", value=7)))


def segmentation(array: np.ndarray, labels: LabelSet = LABELS) -> Segmentation:
    shape = array.shape if labels.is_exclusive else array.shape[1:]
    return Segmentation(array, Geometry.from_spacing(shape, (1.0,) * len(shape)), labels)


def test_ratios_follow_from_counts() -> None:
    counts = Counts(tp=6, fp=2, fn=4, tn=8)
    assert counts.dice == pytest.approx(12 / 18)
    assert counts.iou == pytest.approx(6 / 12)
    assert counts.precision == pytest.approx(6 / 8)
    assert counts.recall == pytest.approx(6 / 10)
    assert counts.accuracy == pytest.approx(14 / 20)
    assert (counts.truth, counts.prediction) == (10, 8)


def test_a_ratio_over_nothing_is_undefined() -> None:
    nothing = Counts(0, 0, 0, 9)
    assert (nothing.dice, nothing.iou, nothing.precision, nothing.recall) == (None, None, None, None)
    assert nothing.accuracy == 1
    assert Counts(0, 0, 0, 0).accuracy is None


def test_pooled_dice_is_not_the_mean_of_dices() -> None:
    large, small = Counts(90, 10, 10, 0), Counts(0, 1, 1, 0)
    assert (large + small).dice == pytest.approx(180 / 202)


def test_counts_of_masks() -> None:
    prediction, truth = np.array([1, 1, 0, 0, 1], dtype=bool), np.array([1, 0, 1, 0, 0], dtype=bool)
    assert Counts.of(prediction, truth) == Counts(tp=1, fp=2, fn=1, tn=1)
    assert Counts.of(prediction, truth, counted=4) == Counts(tp=1, fp=2, fn=1, tn=0)


def test_confusion_and_accuracy_agree_with_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    truth, prediction = rng.choice([0, 2, 7], (2, 6, 5, 4))
    found = confusion_matrix(segmentation(prediction), segmentation(truth))
    np.testing.assert_array_equal(found, reference_confusion(truth.ravel(), prediction.ravel(), labels=[0, 2, 7]))
    accuracy = pixel_accuracy(segmentation(prediction), segmentation(truth))
    assert accuracy == pytest.approx(accuracy_score(truth.ravel(), prediction.ravel()))


def test_rows_of_the_confusion_are_the_truth() -> None:
    found = confusion_matrix(segmentation(np.array([[7, 7]])), segmentation(np.array([[2, 7]])))
    assert found.tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 1]]


def test_ignored_voxels_are_in_no_confusion_and_no_accuracy() -> None:
    labels = LABELS.model_copy(update={"ignore": 255})
    truth, prediction = np.array([[0, 2, 255, 255]]), np.array([[0, 7, 2, 7]])
    found = confusion_matrix(segmentation(prediction, labels), segmentation(truth, labels))
    assert found.tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert pixel_accuracy(segmentation(prediction, labels), segmentation(truth, labels)) == 0.5


def test_accuracy_of_overlapping_labels_asks_for_all_labels_of_a_voxel() -> None:
    labels = LABELS.model_copy(update={"kind": "overlapping"})
    truth = np.array([[[1, 1, 0, 0]], [[1, 0, 0, 1]]], dtype=bool)
    prediction = np.array([[[1, 1, 0, 1]], [[0, 0, 0, 1]]], dtype=bool)
    assert pixel_accuracy(segmentation(prediction, labels), segmentation(truth, labels)) == 0.5
