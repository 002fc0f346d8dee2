"""Clean-up steps on phantoms with answers known by counting, and the contract that every step keeps."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import pytest

from medseg.config import Settings, validate
from medseg.errors import ConfigError
from medseg.geometry import Geometry
from medseg.labels import Label, LabelSet
from medseg.postprocessing import (
    POSTPROCESSING,
    FillHolesConfig,
    KeepLargestConfig,
    PostprocessingConfig,
    RemoveSmallConfig,
)
from medseg.volume import Segmentation

LABELS = LabelSet(labels=(Label(name="core", value=3), Label(name="rim", value=5)), regions={"whole": ("core", "rim")})
OVERLAPPING = LABELS.model_copy(update={"kind": "overlapping"})
STEPS = {"remove_small": {"minimum_mm3": 20.0}}  # what has no default


def segmentation(array: np.ndarray, labels: LabelSet = LABELS) -> Segmentation:
    shape = array.shape if labels.is_exclusive else array.shape[1:]
    return Segmentation(array, Geometry.from_spacing(shape, (1.0, 1.0, 2.0)[: len(shape)]), labels)


def islands() -> np.ndarray:
    """Core: 18 and 4 voxels; rim: 12 beside the large core, 1 alone."""
    array = np.zeros((12, 8, 4), dtype=np.int16)
    array[1:4, 1:4, 1:3] = 3
    array[4:6, 1:4, 1:3] = 5
    array[8:10, 5:7, 1] = 3
    array[11, 0, 0] = 5
    return array


@pytest.mark.parametrize("name", POSTPROCESSING.names())
@pytest.mark.parametrize("labels", [LABELS, OVERLAPPING], ids=["exclusive", "overlapping"])
def test_a_step_keeps_grid_type_labels_and_its_input(name: str, labels: LabelSet) -> None:
    array = islands() if labels.is_exclusive else np.stack([islands() == 3, islands() == 5])
    given, before = segmentation(array, labels), array.copy()
    step = POSTPROCESSING[name].model_validate({"name": name, **STEPS.get(name, {})})
    assert isinstance(step, PostprocessingConfig)
    result = step.apply(given)
    assert result.geometry is given.geometry
    assert result.labels is given.labels
    assert result.array.dtype == array.dtype
    np.testing.assert_array_equal(given.array, before)
    np.testing.assert_array_equal(step.apply(result).array, result.array)  # cleaning twice changes nothing more


def test_the_largest_component_of_each_label_stays() -> None:
    result = KeepLargestConfig().apply(segmentation(islands()))
    assert ((result.array == 3).sum(), (result.array == 5).sum()) == (18, 12)
    assert result.provenance.notes == (
        "keep_largest: 4 of 22 voxels of core removed",
        "keep_largest: 1 of 13 voxels of rim removed",
    )


def test_only_the_named_labels_are_cleaned() -> None:
    result = KeepLargestConfig(labels=("rim",)).apply(segmentation(islands()))
    assert ((result.array == 3).sum(), (result.array == 5).sum()) == (22, 12)


def test_a_region_is_cleaned_as_one() -> None:
    array = islands()
    array[6:10, 1:4, 1:3] = 3  # core, rim, core in a row: one component as a whole
    whole = KeepLargestConfig(labels=("whole",)).apply(segmentation(array))
    assert ((whole.array == 3).sum(), (whole.array == 5).sum()) == (18 + 24, 12)


def test_connectivity_decides_whether_corners_join() -> None:
    array = np.zeros((4, 4, 4), dtype=np.int16)
    array[0, 0, 0] = array[1, 1, 1] = array[1, 1, 2] = 3
    assert (KeepLargestConfig().apply(segmentation(array)).array == 3).sum() == 3
    assert (KeepLargestConfig(connectivity="faces").apply(segmentation(array)).array == 3).sum() == 2


def test_components_below_a_volume_in_mm3_are_removed() -> None:
    """Voxels are 2 mm3: 4 of them make 8 mm3, which is not below 8."""
    stays = RemoveSmallConfig(minimum_mm3=8.0).apply(segmentation(islands()))
    assert ((stays.array == 3).sum(), (stays.array == 5).sum()) == (22, 12)
    goes = RemoveSmallConfig(minimum_mm3=8.1).apply(segmentation(islands()))
    assert (goes.array == 3).sum() == 18


def test_every_component_may_be_too_small() -> None:
    assert not RemoveSmallConfig(minimum_mm3=1e4).apply(segmentation(islands())).array.any()


def test_holes_are_filled_and_what_lies_inside_stays() -> None:
    array = np.zeros((9, 9), dtype=np.int16)
    array[1:8, 1:8] = 3
    array[3:6, 3:6] = 0
    array[4, 4] = 5
    result = FillHolesConfig().apply(segmentation(array))
    assert ((result.array == 3).sum(), (result.array == 5).sum()) == (48, 1)
    assert result.provenance.notes == ("fill_holes: 8 voxels of core added",)


def test_overlapping_labels_are_cleaned_each_on_its_own() -> None:
    array = np.zeros((2, 9, 9), dtype=bool)
    array[0, 1:8, 1:8] = array[1, 2:5, 2:5] = True
    array[0, 4, 4] = False
    array[1, 8, 8] = True
    filled = FillHolesConfig().apply(segmentation(array, OVERLAPPING))
    assert (filled.array[0].sum(), filled.array[1].sum()) == (49, 10)
    kept = KeepLargestConfig(labels=("rim",)).apply(filled)
    assert (kept.array[0].sum(), kept.array[1].sum()) == (49, 9)


def test_an_empty_segmentation_stays_empty() -> None:
    empty = segmentation(np.zeros((4, 4, 4), dtype=np.int16))
    for step in (KeepLargestConfig(), RemoveSmallConfig(minimum_mm3=1), FillHolesConfig()):
        assert not step.apply(empty).array.any()


def test_an_unknown_label_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"postprocessing keep_largest.labels: 'cor' .*did you mean 'core'"):
        KeepLargestConfig(labels=("cor",)).apply(segmentation(islands()))


def test_holes_of_a_region_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"fill_holes.labels: 'whole'"):
        FillHolesConfig(labels=("whole",)).apply(segmentation(islands()))


def test_steps_are_read_by_name() -> None:
    class Plan(Settings):
        steps: tuple[Annotated[PostprocessingConfig, POSTPROCESSING], ...] = ()

    plan = validate(Plan, {"steps": [{"name": "remove_small", "minimum_mm3": 5}, {"name": "fill_holes"}]}, "plan")
    assert plan.steps == (RemoveSmallConfig(minimum_mm3=5), FillHolesConfig())
    with pytest.raises(ConfigError, match="minimum_mm3"):
        validate(Plan, {"steps": [{"name": "remove_small", "minimum_mm3": 0}]}, "plan")
