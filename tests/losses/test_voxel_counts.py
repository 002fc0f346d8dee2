"""Weights that make up for rare labels, from the voxels of the training cases."""

from __future__ import annotations

import numpy as np
import pytest

from medseg.config import validate
from medseg.errors import ConfigError
from medseg.labels import Label, LabelSet
from medseg.losses import CrossEntropyConfig, SumConfig, VoxelCounts, build_loss, count_voxels
from medseg.losses.voxel_counts import effective_number, inverse_frequency

TWO = (Label(name="anterior", value=1), Label(name="posterior", value=3))
EXCLUSIVE = LabelSet(labels=TWO)
OVERLAPPING = LabelSet(labels=TWO, kind="overlapping")
COUNTS = VoxelCounts((80, 16, 4), (20, 84, 96), is_exclusive=True)


def test_voxels_are_counted_over_all_cases() -> None:
    cases = [np.array([[[0, 1, 3, 0]]]), np.array([[[1], [9], [9]]])]
    assert count_voxels(cases, EXCLUSIVE.model_copy(update={"ignore": 9})) == VoxelCounts((2, 2, 1), (3, 3, 4), True)
    flags = [np.array([[[1, 1, 0]], [[0, 1, 0]]], dtype=np.int32)]
    assert count_voxels(flags, OVERLAPPING) == VoxelCounts((2, 1), (1, 2), False)


def test_what_nobody_looked_for_is_not_counted() -> None:
    cases = [np.array([[[0, 1, 1, 0]]]), np.array([[[0, 1, 3, 3]]])]
    rows = [EXCLUSIVE.annotated(["anterior"]), EXCLUSIVE.annotated(None)]
    assert count_voxels(cases, EXCLUSIVE, rows) == VoxelCounts((1, 3, 2), (3, 5, 2), True)
    flags = [np.array([[[1, 0, 0]], [[0, 0, 0]]]), np.array([[[1, 1, 0]], [[0, 1, 0]]])]
    rows = [OVERLAPPING.annotated(["anterior"]), OVERLAPPING.annotated(None)]
    assert count_voxels(flags, OVERLAPPING, rows) == VoxelCounts((3, 1), (3, 2), False)


def test_inverse_frequency_gives_every_label_the_same_total() -> None:
    weights = inverse_frequency(COUNTS)
    totals = [weight * voxels for weight, voxels in zip(weights, COUNTS.inside, strict=True)]
    assert totals == pytest.approx([totals[0]] * 3)
    assert np.mean(weights) == pytest.approx(1)


def test_inverse_frequency_of_overlapping_labels_balances_inside_and_outside() -> None:
    counts = VoxelCounts((20, 50), (80, 50), is_exclusive=False)
    assert inverse_frequency(counts) == pytest.approx((4, 1))


def test_effective_number_by_its_definition() -> None:
    numbers = [(1 - 0.9**n) / (1 - 0.9) for n in COUNTS.inside]  # Cui et al., equation 2
    expected = np.array([1 / number for number in numbers])
    assert effective_number(COUNTS, 0.9) == pytest.approx(tuple(expected / expected.mean()))


def test_effective_number_lies_between_equal_weights_and_inverse_frequency() -> None:
    assert effective_number(COUNTS, 0) == pytest.approx((1, 1, 1))
    assert effective_number(COUNTS, 1 - 1e-9) == pytest.approx(inverse_frequency(COUNTS), rel=1e-5)
    many = VoxelCounts((10**9, 10**3), (10**3, 10**9), is_exclusive=True)
    rare_to_common = effective_number(many, 0.999999)
    assert rare_to_common[1] / rare_to_common[0] == pytest.approx(1e6 / 1e3, rel=1e-3)  # a million is the most


def test_a_label_without_voxels_weighs_as_the_mean() -> None:
    counts = VoxelCounts((90, 10, 0), (10, 90, 100), is_exclusive=True)
    for weights in (inverse_frequency(counts), effective_number(counts, 0.99)):
        assert weights[2] == 1
        assert np.mean(weights[:2]) == pytest.approx(1)


def test_an_overlapping_label_that_is_everywhere_weighs_as_its_outside() -> None:
    counts = VoxelCounts((100, 20), (0, 80), is_exclusive=False)
    assert inverse_frequency(counts) == pytest.approx((1, 4))


def test_a_config_is_weighed_once_and_then_plain() -> None:
    config = CrossEntropyConfig(weights="inverse_frequency")
    assert config.needs_counts
    weighed = config.weighed(COUNTS)
    assert weighed == CrossEntropyConfig(weights=inverse_frequency(COUNTS))
    assert not weighed.needs_counts
    terms = [{"loss": {"name": "dice"}}, {"loss": {"name": "cross_entropy", "weights": "effective_number"}}]
    total = validate(SumConfig, {"terms": terms}, "experiment.yaml")
    assert total.needs_counts
    assert total.weighed(COUNTS).terms[1].loss == CrossEntropyConfig(weights=effective_number(COUNTS, 0.999999))


@pytest.mark.parametrize("name", ["cross_entropy", "sum"])
def test_weights_that_fit_no_output_are_refused_by_name(name: str) -> None:
    config: CrossEntropyConfig | SumConfig = CrossEntropyConfig(weights=(1, 2))
    if name == "sum":
        config = validate(SumConfig, {"terms": [{"loss": config.model_dump()}]}, "experiment.yaml")
    with pytest.raises(ConfigError, match=r"2 numbers for 3 network outputs; give one for each of background, ante"):
        build_loss(config, EXCLUSIVE)


def test_counts_that_are_missing_are_asked_for() -> None:
    with pytest.raises(ConfigError, match="build its `weighed` config"):
        build_loss(CrossEntropyConfig(weights="inverse_frequency"), EXCLUSIVE)
