"""The scores of a case: arithmetic on small labels, the rule for empty ones, and what is refused."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from medseg.config import validate
from medseg.errors import ConfigError, GeometryError, LabelError
from medseg.geometry import Geometry
from medseg.labels import Label, LabelSet
from medseg.metrics import METRICS, Counts, LabelScore, MetricsConfig, mean_over_labels, score_case
from medseg.volume import Segmentation

LABELS = LabelSet(labels=(Label(name="core", value=1), Label(name="rim", value=2)), regions={"whole": ("core", "rim")})
GEOMETRY = Geometry.from_spacing((12, 10, 8), (1.0, 2.0, 5.0))  # voxels of 10 mm3


def segmentation(boxes: dict[int, tuple[slice, ...]], labels: LabelSet = LABELS) -> Segmentation:
    array = np.zeros(GEOMETRY.shape, dtype=np.int16)
    for value, box in boxes.items():
        array[box] = value
    return Segmentation(array, GEOMETRY, labels)


def box(x: int, width: int = 2) -> tuple[slice, ...]:
    return slice(x, x + width), slice(2, 7), slice(2, 6)


def by_label(
    prediction: Segmentation, truth: Segmentation, settings: MetricsConfig | None = None
) -> dict[str, LabelScore]:
    return {one.label: one for one in score_case("case_1", prediction, truth, settings)}


def test_a_case_has_a_score_for_each_label_then_each_region() -> None:
    scores = score_case("case_1", segmentation({1: box(2)}), segmentation({1: box(2)}))
    assert [(one.case, one.label, one.is_region) for one in scores] == [
        ("case_1", "core", False),
        ("case_1", "rim", False),
        ("case_1", "whole", True),
    ]


def test_overlap_and_volumes_by_arithmetic() -> None:
    core = by_label(segmentation({1: box(3, 3)}), segmentation({1: box(2, 2)}))["core"]
    assert core.counts == Counts(tp=20, fp=40, fn=20, tn=960 - 80)
    assert core.dice == pytest.approx(40 / 100)
    assert core.iou == pytest.approx(20 / 80)
    assert (core.precision, core.recall) == (pytest.approx(1 / 3), pytest.approx(1 / 2))
    assert core.accuracy == pytest.approx(900 / 960)
    assert (core.volume_truth_ml, core.volume_prediction_ml) == (pytest.approx(0.4), pytest.approx(0.6))
    assert (core.volume_error_ml, core.volume_error_percent) == (pytest.approx(0.2), pytest.approx(50.0))


def test_distances_are_in_mm_and_the_tolerance_decides() -> None:
    pair = segmentation({1: box(3)}), segmentation({1: box(2)})
    core = by_label(*pair)["core"]
    assert core.hd95 == 1.0
    assert core.assd == pytest.approx(0.5)  # half the voxels lie on both, half 1 mm off
    assert core.nsd == 1.0
    assert by_label(*pair, MetricsConfig(nsd_tolerance_mm=0.5))["core"].nsd == pytest.approx(0.5)


def test_a_label_may_have_its_own_tolerance() -> None:
    settings = MetricsConfig(nsd_tolerance_mm=1.0, nsd_tolerances_mm={"core": 0.5})
    scores = by_label(segmentation({1: box(3)}), segmentation({1: box(2)}), settings)
    assert (scores["core"].nsd, scores["whole"].nsd) == (pytest.approx(0.5), 1.0)


def test_a_region_unites_its_labels() -> None:
    """Swapped labels are wrong one by one, and right as a whole."""
    prediction, truth = segmentation({1: box(2), 2: box(4)}), segmentation({2: box(2), 1: box(4)})
    scores = by_label(prediction, truth)
    assert (scores["core"].dice, scores["rim"].dice, scores["whole"].dice) == (0, 0, 1)
    assert mean_over_labels(scores.values()) == 0


def test_absent_in_both_is_undefined() -> None:
    rim = by_label(segmentation({1: box(2)}), segmentation({1: box(2)}))["rim"]
    undefined = (rim.dice, rim.iou, rim.precision, rim.recall, rim.hd95, rim.assd, rim.nsd, rim.volume_error_percent)
    assert undefined == (None,) * 8
    assert (rim.presence, rim.accuracy, rim.volume_error_ml) == ("absent", 1.0, 0.0)


def test_a_missed_label_scores_zero_and_has_no_distance() -> None:
    core = by_label(segmentation({}), segmentation({1: box(2)}))["core"]
    assert (core.dice, core.iou, core.nsd, core.recall) == (0, 0, 0, 0)
    assert (core.precision, core.hd95, core.assd) == (None, None, None)
    assert (core.presence, core.volume_error_percent) == ("missed", -100.0)


def test_a_spurious_label_scores_zero_and_has_no_distance() -> None:
    core = by_label(segmentation({1: box(2)}), segmentation({}))["core"]
    assert (core.dice, core.iou, core.nsd, core.precision) == (0, 0, 0, 0)
    assert (core.recall, core.hd95, core.assd, core.volume_error_percent) == (None, None, None, None)
    assert (core.presence, core.volume_error_ml) == ("spurious", pytest.approx(0.4))


def test_the_foreground_mean_leaves_out_what_is_undefined() -> None:
    scores = score_case("case_1", segmentation({1: box(3)}), segmentation({1: box(2)}))
    assert mean_over_labels(scores) == pytest.approx(0.5)
    assert mean_over_labels(score_case("case_1", segmentation({}), segmentation({}))) is None


def test_ignored_voxels_count_nowhere() -> None:
    labels = LABELS.model_copy(update={"ignore": 255})
    truth = segmentation({1: box(2), 255: (slice(6, 12),)}, labels)
    prediction = segmentation({1: box(2), 2: (slice(6, 12),)}, labels)
    scores = by_label(prediction, truth)
    assert (scores["core"].dice, scores["core"].counts.tn) == (1, 480 - 40)
    assert scores["rim"].presence == "absent"


def test_overlapping_labels_are_scored_one_by_one() -> None:
    labels = LABELS.model_copy(update={"kind": "overlapping"})
    array = np.zeros((2, *GEOMETRY.shape), dtype=bool)
    array[0][box(2)] = array[1][box(2, 4)] = True
    shifted = array.copy()
    shifted[0] = np.roll(array[0], 1, axis=0)
    scores = by_label(Segmentation(shifted, GEOMETRY, labels), Segmentation(array, GEOMETRY, labels))
    assert (scores["core"].dice, scores["rim"].dice, scores["whole"].dice) == (pytest.approx(0.5), 1, 1)


def test_pictures_are_measured_in_pixels_and_have_no_millilitres() -> None:
    geometry = Geometry.from_spacing((20, 20), (1, 1), "px")
    truth, prediction = np.zeros((20, 20), dtype=int), np.zeros((20, 20), dtype=int)
    truth[5:10, 5:10] = prediction[8:13, 5:10] = 1
    core = by_label(Segmentation(prediction, geometry, LABELS), Segmentation(truth, geometry, LABELS))["core"]
    assert (core.unit, core.hd95, core.volume_error_ml, core.volume_error_percent) == ("px", 3.0, None, 0.0)


def test_distances_can_be_left_out() -> None:
    core = by_label(segmentation({1: box(3)}), segmentation({1: box(2)}), MetricsConfig(distances=False))["core"]
    assert (core.hd95, core.assd, core.nsd) == (None, None, None)
    assert core.dice == pytest.approx(0.5)


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry.from_spacing((12, 10, 8), (1.0, 2.0, 4.0)),
        Geometry(GEOMETRY.shape, np.array([[1, 0, 0, 3.0], [0, 2, 0, 0], [0, 0, 5, 0], [0, 0, 0, 1]])),
    ],
    ids=["spacing", "origin"],
)
def test_another_grid_is_refused_by_name(geometry: Geometry) -> None:
    moved = Segmentation(segmentation({1: box(2)}).array, geometry, LABELS)
    with pytest.raises(GeometryError, match=r"case case_7: the prediction lies on .* grid of the source"):
        score_case("case_7", moved, segmentation({1: box(2)}))


def test_other_labels_are_refused_by_name() -> None:
    other = LabelSet(labels=(Label(name="core", value=1), Label(name="edge", value=2)))
    with pytest.raises(LabelError, match=r"case case_7: .*core=1, edge=2.*core=1, rim=2"):
        score_case("case_7", replace(segmentation({}), labels=other), segmentation({}))


def test_every_listed_metric_is_a_field_of_a_score() -> None:
    assert set(METRICS) < set(LabelScore.__dataclass_fields__)


def test_a_negative_tolerance_is_refused() -> None:
    with pytest.raises(ConfigError, match="nsd_tolerance_mm"):
        validate(MetricsConfig, {"nsd_tolerance_mm": -1}, "metrics")


def test_a_small_volume_takes_milliseconds() -> None:
    rng = np.random.default_rng(0)
    x, y, z = np.ogrid[:35, :50, :36]
    inside = (x - 17) ** 2 + ((y - 25) / 1.7) ** 2 + (z - 18) ** 2 < 100
    array = np.where(inside, np.where(y < 25, 1, 2), 0)
    geometry = Geometry.from_spacing(array.shape, (1, 1, 1))
    noisy = np.where(rng.random(array.shape) < 0.01, 1, np.roll(array, 1, axis=1))
    pair = Segmentation(noisy, geometry, LABELS), Segmentation(array, geometry, LABELS)
    score_case("warm", *pair)
    started = time.perf_counter()
    score_case("case_1", *pair)
    assert time.perf_counter() - started < 0.5  # about 0.02 on one core; the bound leaves room for a busy machine
