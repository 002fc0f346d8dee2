"""All measurements of one case, label by label, under one stated rule for labels that are absent.

Where a label is empty in                 Dice, IoU, NSD   precision   recall   HD95, ASSD   volume error %
    neither                               measured         measured    measured measured     measured
    the truth and the prediction          None             None        None     None         None
    the prediction alone (missed)         0                None        0        None         -100
    the truth alone (spurious)            0                0           None     None         None

None is undefined, and no mean counts it: a label that is rightly absent neither lifts nor lowers a mean, as in nnU-Net,
while a missed or spurious one costs a Dice of 0. A distance to nothing is infinite, and any finite stand-in would
depend on the field of view; means of HD95 and ASSD therefore stand beside the number of cases that they count, and of
those that were missed, spurious and absent. A label that nobody looked for in a case has no score there. Voxels of the
LabelSet's ignore value count nowhere; for surfaces they are background.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medseg.errors import GeometryError, LabelError
from medseg.metrics.config import MetricsConfig
from medseg.metrics.overlap import Counts, counted_voxels
from medseg.volume import Segmentation


@dataclass(frozen=True)
class LabelScore:
    """The measurements of one label or region in one case; None is undefined, as the module's table says."""

    case: str
    label: str
    is_region: bool
    counts: Counts
    dice: float | None
    iou: float | None
    precision: float | None
    recall: float | None
    accuracy: float | None  # of this label against all else
    hd95: float | None
    assd: float | None
    nsd: float | None
    volume_truth_ml: float | None  # None on a grid without millilitres: 2D, or px
    volume_prediction_ml: float | None
    volume_error_ml: float | None  # positive where the prediction is larger
    volume_error_percent: float | None
    unit: Literal["mm", "px"]  # of hd95 and assd

    @property
    def presence(self) -> Literal["both", "absent", "missed", "spurious"]:
        """Where the label was found: in both, in neither, in the truth alone or in the prediction alone."""
        match self.counts.truth > 0, self.counts.prediction > 0:
            case True, True:
                return "both"
            case False, False:
                return "absent"
            case True, False:
                return "missed"
            case _:
                return "spurious"


def score_case(
    case_id: str, prediction: Segmentation, truth: Segmentation, settings: MetricsConfig | None = None
) -> list[LabelScore]:
    """The scores of each label, then of each region of the truth's LabelSet, on the truth's grid.

    Raises GeometryError where the grids differ, LabelError where the label sets do.
    """
    check_comparable(case_id, prediction, truth)
    settings = settings or MetricsConfig()
    counted = counted_voxels(truth)
    names = [(name, False) for name in truth.labels.names] + [(name, True) for name in truth.labels.regions]
    if truth.annotated is not None:
        names = [(name, is_region) for name, is_region in names if _was_looked_for(name, truth)]
    return [_score(case_id, name, is_region, (prediction, truth, counted), settings) for name, is_region in names]


def _was_looked_for(name: str, truth: Segmentation) -> bool:
    """Whether a label, or every label of a region, is among those that the truth was made for."""
    return truth.annotated is None or set(truth.labels.regions.get(name, (name,))) <= set(truth.annotated)


def mean_over_labels(scores: Iterable[LabelScore], metric: str = "dice") -> float | None:
    """The foreground value of one case: the mean of a metric over labels, regions left out; None where none has it."""
    values = [getattr(score, metric) for score in scores if not score.is_region]
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def check_comparable(case_id: str, prediction: Segmentation, truth: Segmentation) -> None:
    """Raises GeometryError or LabelError unless two segmentations share their grid and their labels."""
    if not prediction.geometry.matches(truth.geometry):
        raise GeometryError(
            f"case {case_id}: the prediction lies on {prediction.geometry.describe()}, "
            f"the truth on {truth.geometry.describe()}{_same_look(prediction, truth)}; "
            "bring the prediction onto the grid of the source image"
        )
    ours, theirs = prediction.labels, truth.labels
    if ours.names != theirs.names or ours.values != theirs.values or ours.kind != theirs.kind:
        raise LabelError(
            f"case {case_id}: the prediction's labels are {_listing(prediction)} ({ours.kind}), "
            f"the truth's {_listing(truth)} ({theirs.kind}); score a model against labels of its own LabelSet"
        )


def _score(
    case_id: str,
    name: str,
    is_region: bool,
    pair: tuple[Segmentation, Segmentation, np.ndarray | None],
    settings: MetricsConfig,
) -> LabelScore:
    prediction, truth, counted = pair
    found, true = truth.labels.mask(prediction.array, name), truth.mask(name)
    if counted is not None:
        found, true = found & counted, true & counted
    counts = Counts.of(found, true, None if counted is None else int(np.count_nonzero(counted)))
    hd95, assd, nsd = _distances(found, true, truth, settings.tolerance(name)) if settings.distances else [None] * 3
    voxel_ml = truth.geometry.voxel_volume / 1000 if truth.geometry.dims == 3 and truth.geometry.unit == "mm" else None
    difference = counts.prediction - counts.truth
    return LabelScore(
        case=case_id,
        label=name,
        is_region=is_region,
        counts=counts,
        dice=counts.dice,
        iou=counts.iou,
        precision=counts.precision,
        recall=counts.recall,
        accuracy=counts.accuracy,
        hd95=hd95,
        assd=assd,
        nsd=nsd,
        volume_truth_ml=None if voxel_ml is None else counts.truth * voxel_ml,
        volume_prediction_ml=None if voxel_ml is None else counts.prediction * voxel_ml,
        volume_error_ml=None if voxel_ml is None else difference * voxel_ml,
        volume_error_percent=100 * difference / counts.truth if counts.truth else None,
        unit=truth.geometry.unit,
    )


def _distances(found: np.ndarray, true: np.ndarray, truth: Segmentation, tolerance: float) -> list[float | None]:
    """HD95, ASSD and NSD by the module's rule for empty labels."""
    from medseg.metrics.surface import surface_distances  # settings are read without SciPy

    distances = surface_distances(found, true, truth.geometry)
    if distances is None:
        return [None, None, 0.0 if found.any() or true.any() else None]
    return [distances.hausdorff(95.0), distances.mean(), distances.share_within(tolerance)]


def _listing(segmentation: Segmentation) -> str:
    return ", ".join(f"{label.name}={label.value}" for label in segmentation.labels.labels)


def _same_look(prediction: Segmentation, truth: Segmentation) -> str:
    """What `describe` does not show: grids that differ by their place alone."""
    if prediction.geometry.describe() != truth.geometry.describe():
        return ""
    gap = np.linalg.norm(prediction.geometry.affine[:-1, -1] - truth.geometry.affine[:-1, -1])
    return f" with an origin {gap:.4g} {truth.geometry.unit} away, or turned axes"
