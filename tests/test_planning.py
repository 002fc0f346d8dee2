"""A plan follows from numbers: what fits is taken, what does not gives way, and every choice says why."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import yaml

from medseg.config import validate
from medseg.data.fingerprint import CaseFacts, Fingerprint, likely_pairs
from medseg.errors import ConfigError
from medseg.experiment import ExperimentConfig
from medseg.labels import Label, LabelSet
from medseg.planning import Cost, Goal, Plan, plan, shape_for

GOAL = Goal("planned", "data", 1, minutes=10, memory_bytes=10**10, device="cpu")


def facts(shape: tuple[int, ...], spacing: tuple[float, ...], zeros: float = 0.0, channels: int = 1) -> CaseFacts:
    each = (0.0,) * channels
    return CaseFacts("c", shape, spacing, (zeros,) * channels, each, each, (50, 10), (1, 3))


def fingerprint(*cases: CaseFacts, channels: tuple[str, ...] = ("MR",)) -> Fingerprint:
    percentiles = tuple((-100.4, 0.0, 300.6) for _ in channels)
    return Fingerprint(cases, channels, ("organ", "tumour"), percentiles, ())


def by_voxels(step_s: float, bytes_: float) -> object:
    """A machine on which a step's time and memory are in proportion to its voxels."""

    def measure(config: ExperimentConfig) -> Cost:
        voxels = config.training.batch_size * math.prod(config.patch.size)
        return Cost(voxels * step_s, int(voxels * bytes_))

    return measure


def made(found: Fingerprint, goal: Goal = GOAL, step_s: float = 1e-6, bytes_: float = 1e3) -> Plan:
    return plan(found, goal, by_voxels(step_s, bytes_))  # type: ignore[arg-type]


def test_a_small_case_is_taken_whole_with_the_larger_batch() -> None:
    planned = made(fingerprint(facts((35, 50, 36), (1.0, 1.0, 1.0))))
    config = planned.experiment
    assert config.patch.size == (40, 56, 40)
    assert config.training.batch_size == 4
    assert config.training.max_minutes == 10
    assert config.preprocessing.spacing_mm is None
    assert list(config.network.model_dump()["channels"]) == [16, 32, 64, 128]
    assert "which the patch holds whole" in planned.reasons["patch"]
    assert "0.36 s" in planned.reasons["patch"]  # 4 x 40 x 56 x 40 voxels of a microsecond


def test_memory_and_time_shrink_the_patch_and_then_the_batch() -> None:
    large = fingerprint(facts((256, 256, 128), (1.0, 1.0, 1.0)))
    free = made(large).experiment
    assert max(free.patch.size) <= 160
    little = made(large, replace(GOAL, memory_bytes=10**9)).experiment
    assert little.training.batch_size * math.prod(little.patch.size) * 1e3 <= 0.9 * 10**9
    assert little.training.batch_size * math.prod(little.patch.size) * 1e3 > 0.3 * 10**9  # no more than needed
    short = made(large, replace(GOAL, minutes=1)).experiment
    assert 60 / (short.training.batch_size * math.prod(short.patch.size) * 1e-6) >= 500
    with pytest.raises(ConfigError, match=r"--memory: 0\.0 GB hold no training step that is worth it \(2 x 160"):
        made(large, replace(GOAL, memory_bytes=10**4))


def test_where_a_patch_sees_too_little_the_grid_is_coarser_as_far_as_the_labels_bear_it() -> None:
    def picture(voxels: int) -> Fingerprint:
        return fingerprint(replace(facts((512, 512), (1.0, 1.0)), voxels=(voxels, voxels)), channels=("CR",))

    goal, step_s = replace(GOAL, minutes=5), 1.2e-5  # 500 steps of 2 x 158 x 158 voxels
    large = made(picture(70_000), goal, step_s)  # 299 pixels across
    assert large.experiment.preprocessing.spacing_mm is not None
    factor = large.experiment.preprocessing.spacing_mm[0]
    assert 1.4 < factor < 2.2
    extent = 512 / factor
    assert math.prod(min(edge / extent, 1) for edge in large.experiment.patch.size) >= 0.24
    assert "of a case" in large.reasons["preprocessing.spacing_mm"]
    assert "none is resampled" not in large.reasons["preprocessing.spacing_mm"]
    small = made(picture(400), goal, step_s)  # 23 pixels across
    assert small.experiment.preprocessing.spacing_mm[0] == pytest.approx(23 / 16, abs=0.05)  # type: ignore[index]
    assert made(picture(100), goal, step_s).experiment.preprocessing.spacing_mm is None  # 11 across


def test_a_coarse_axis_is_resampled_to_its_finest_tenth_and_halved_later() -> None:
    cases = [facts((300, 300, 20 + number), (0.8, 0.8, 5.0 + number)) for number in range(11)]
    planned = made(fingerprint(*cases))
    assert planned.experiment.preprocessing.spacing_mm == (0.8, 0.8, 6.0)
    assert "axis 2 is coarse" in planned.reasons["preprocessing.spacing_mm"]
    strides = planned.experiment.network.model_dump()["strides"]
    assert list(strides[:2]) == [(2, 2, 1), (2, 2, 1)]  # 0.8 -> 1.6 -> 3.2 mm, then 6 mm is within a factor of two
    assert (2, 2, 2) in strides


@pytest.mark.parametrize(
    ("edges", "spacing", "patch", "stages"),
    [
        ((35, 50, 36), (1, 1, 1), (40, 56, 40), 4),
        ((512, 512), (1, 1), (512, 512), 7),
        ((5, 5, 5), (1, 1, 1), (6, 6, 6), 2),
        ((320, 320, 10), (1, 1, 8), (320, 320, 10), 6),
    ],
)
def test_patches_are_what_the_network_can_halve(
    edges: tuple[int, ...], spacing: tuple[float, ...], patch: tuple[int, ...], stages: int
) -> None:
    shape = shape_for(np.array(edges, float), np.array(spacing, float), 2)
    assert shape.patch == patch
    assert len(shape.strides) + 1 == stages
    divisor = np.prod(shape.strides, axis=0)
    assert all(edge % step == 0 and edge // step >= 2 for edge, step in zip(shape.patch, divisor, strict=True))


def test_intensity_follows_the_channel() -> None:
    two = fingerprint(facts((64, 64, 64), (1, 1, 1), zeros=0.5, channels=2), channels=("CT", "T1"))
    assert made(two).content["preprocessing"]["intensity"] == [
        {"name": "window", "low": -100, "high": 301, "channels": [0]},
        {"name": "z_score", "nonzero": True, "channels": [1]},
    ]
    assert made(fingerprint(facts((64, 64, 64), (1, 1, 1)))).content["preprocessing"]["intensity"] == [
        {"name": "z_score"}
    ]


def test_pictures_keep_their_axes() -> None:
    config = made(fingerprint(facts((600, 400), (1.0, 1.0)), channels=("CR",))).experiment
    assert config.preprocessing.orientation is None
    assert config.network.spatial_dims == 2
    assert config.patch.size == (512, 448)


def test_the_file_is_the_experiment_with_a_reason_above_each_choice() -> None:
    planned = made(fingerprint(facts((35, 50, 36), (1.0, 1.0, 1.0))))
    text = planned.text(["A head. " * 30])
    assert validate(ExperimentConfig, yaml.safe_load(text), "plan") == planned.experiment
    lines = text.splitlines()
    assert max(map(len, lines)) <= 120
    for key in ("patch", "network", "loss", "training", "augmentation"):
        assert lines[lines.index(next(line for line in lines if line.startswith(f"{key}:"))) - 1].startswith("# ")
    assert "organ is of one piece" in " ".join(line.lstrip("# ") for line in lines)


def test_labels_that_look_like_a_pair_are_told() -> None:
    names = ["left kidney", "right kidney", "liver", "Hippocampus_L", "Hippocampus_R", "left"]
    labels = LabelSet(labels=tuple(Label(name=name, value=index + 1) for index, name in enumerate(names)))
    assert likely_pairs(labels) == (("Hippocampus_L", "Hippocampus_R"), ("left kidney", "right kidney"))
