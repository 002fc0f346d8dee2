"""Voxel counts and the ratios over them, so that a case and a whole data set share one set of formulas."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from medseg.labels import LabelSet
from medseg.volume import Segmentation


@dataclass(frozen=True)
class Counts:
    """Voxels by prediction and truth: true and false positives and negatives. Counts of cases add up.

    A ratio over nothing is None. So with truth and prediction both empty, all ratios but `accuracy` are None; with one
    of them empty, Dice and IoU are 0, and so is precision or recall, whichever is defined.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @classmethod
    def of(cls, prediction: np.ndarray, truth: np.ndarray, counted: int | None = None) -> Counts:
        """Counts of two bool masks; `counted` voxels count (default: all), and the masks hold none that does not."""
        total = truth.size if counted is None else counted
        tp = int(np.count_nonzero(prediction & truth))
        fp = int(np.count_nonzero(prediction)) - tp
        fn = int(np.count_nonzero(truth)) - tp
        return cls(tp, fp, fn, total - tp - fp - fn)

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def dice(self) -> float | None:
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float | None:
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float | None:
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float | None:
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def accuracy(self) -> float | None:
        return _ratio(self.tp + self.tn, self.tp + self.fp + self.fn + self.tn)

    @property
    def truth(self) -> int:
        """Voxels of the truth."""
        return self.tp + self.fn

    @property
    def prediction(self) -> int:
        """Voxels of the prediction."""
        return self.tp + self.fp


def counted_voxels(truth: Segmentation) -> np.ndarray | None:
    """Where voxels count, bool on the grid, or None where all do."""
    ignore = truth.labels.ignore
    return None if ignore is None or not truth.labels.is_exclusive else np.asarray(truth.array != ignore)


def as_looked_for(prediction: Segmentation, truth: Segmentation) -> Segmentation:
    """The prediction without labels that nobody looked for in the truth: there they count as background."""
    if truth.annotated is None:
        return prediction
    array, labels = prediction.array.copy(), truth.labels
    for index, label in enumerate(labels.labels):
        if label.name not in truth.annotated:
            if labels.is_exclusive:
                array[array == label.value] = 0
            else:
                array[index] = False
    return replace(prediction, array=array)


def confusion_matrix(prediction: Segmentation, truth: Segmentation) -> np.ndarray:
    """Voxels by label, int64 `(K, K)`: rows are the truth, columns the prediction, both background first, then labels.

    For exclusive labels; ignored voxels are left out. Its trace over its sum is the case's pixel accuracy.
    """
    size, ignore = truth.labels.channels, truth.labels.ignore
    found = np.zeros(size * size, dtype=np.int64)
    for true, guess in zip(truth.array, prediction.array, strict=True):  # one slab at a time: bounded memory
        rows, columns = _outputs(true, truth.labels), _outputs(guess, truth.labels)
        pairs = rows * size + columns
        found += np.bincount((pairs if ignore is None else pairs[true != ignore]).ravel(), minlength=size * size)
    return found.reshape(size, size)


def accuracy_of(confusion: np.ndarray) -> float | None:
    """The share of voxels on the diagonal of a confusion matrix; None where it counts none."""
    return _ratio(int(np.trace(confusion)), int(confusion.sum()))


def pixel_accuracy(prediction: Segmentation, truth: Segmentation) -> float | None:
    """Share of the counted voxels whose labels are all right; None where no voxel counts."""
    if truth.labels.is_exclusive:
        return accuracy_of(confusion_matrix(prediction, truth))
    right = (prediction.array.astype(bool) == truth.array.astype(bool)).all(axis=0)
    return _ratio(int(np.count_nonzero(right)), right.size)


def _outputs(label: np.ndarray, labels: LabelSet) -> np.ndarray:
    """Indices among background and labels, by a table; a value that is neither counts as background."""
    highest = max(labels.values)
    table = np.zeros(highest + 1, dtype=np.int64)
    table[labels.values] = range(len(labels.values))
    return table[np.where((label >= 0) & (label <= highest), label, 0)]


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
