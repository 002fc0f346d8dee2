"""Difficult cases come more often, by arithmetic, and the same for any number of workers."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from medseg.data.loaders import DrawOrder, Patches, training_case
from medseg.data.patches import PatchSettings
from medseg.data.preprocessing import Prepared
from medseg.geometry import Geometry
from medseg.labels import Label, LabelSet
from medseg.training.settings import TrainingSettings
from medseg.training.stream import Stream

ONE = LabelSet(labels=(Label(name="one", value=1),), ignore=9)


def cases(count: int) -> list:
    grid = Geometry.from_spacing((4, 4, 4), (1.0, 1.0, 1.0))
    image = np.zeros((1, 4, 4, 4), np.float32)
    return [training_case(f"c{number}", Prepared(image, image, grid, grid), ONE) for number in range(count)]


def stream(count: int = 10, **settings: object) -> Stream:
    plan = TrainingSettings.model_validate({"total_steps": 1, "batch_size": 4, "workers": 0, **settings})
    return Stream(Patches(cases(count), PatchSettings(size=(4, 4, 4)), [], seed=2), ONE, plan)


def shown(source: Stream, steps: range) -> list[list[int]]:
    return [batch["case"].tolist() for batch in source.batches(steps)]


def test_weights_decide_how_often_a_case_comes_in_an_epoch() -> None:
    weights = np.array([0.5, 0.3, 0.1, 0.06, 0.04])
    drawn = [draw for batch in DrawOrder(5, 5, range(2000), 0, weights=lambda epoch: weights) for draw in batch]
    for epoch in range(0, 2000, 100):
        counts = Counter(draw.case for draw in drawn[5 * epoch : 5 * epoch + 5])
        assert all(abs(counts[case] - 5 * weight) < 1 for case, weight in enumerate(weights))
    total = Counter(draw.case for draw in drawn)
    assert [total[case] / len(drawn) for case in range(5)] == pytest.approx(weights, abs=0.01)


def test_difficulty_is_a_running_mean_of_the_soft_dice_loss() -> None:
    source = stream(3, hard_cases=0.5)
    label = torch.zeros(2, 1, 4, 4, 4)
    label[:, :, :2] = 1
    label[1, :, 3] = 9  # not counted
    certain = 50.0 * torch.cat([label == 0, label == 1], dim=1).float()
    half_wrong = certain.clone()
    half_wrong[:, :, 0] = certain[:, [1, 0], 0]  # 16 of 32 voxels of the label are missed
    half_wrong[1, :, 3] = torch.tensor([0.0, 50.0]).view(2, 1, 1)  # would be 16 invented ones, were they counted
    source.record(torch.tensor([2, 0]), half_wrong, label)
    assert source.difficulty[[0, 2]] == pytest.approx([1 - 33 / 49] * 2, abs=1e-4)
    assert np.isnan(source.difficulty[1])
    source.record(torch.tensor([2]), certain[:1], label[:1])
    assert source.difficulty[2] == pytest.approx((1 - 33 / 49) / 2, abs=1e-4)
    weights = source._weights()
    expected = np.array([2, 1.5, 1]) / 4.5  # the unknown one is taken for their mean
    assert weights == pytest.approx(0.5 / 3 + 0.5 * expected, abs=1e-3)


def test_difficulty_is_of_the_labels_that_were_looked_for() -> None:
    two = LabelSet(labels=(Label(name="one", value=1), Label(name="two", value=2)))
    plan = TrainingSettings(total_steps=1, batch_size=2, workers=0, hard_cases=0.5)
    source = Stream(Patches(cases(2), PatchSettings(size=(4, 4, 4)), [], seed=2), two, plan)
    label = torch.zeros(2, 1, 4, 4, 4)
    label[:, :, 0] = 1
    annotated = torch.tensor([two.annotated(["one"]), two.annotated(None)])
    missed = 50.0 * torch.cat([torch.ones(2, 1, 4, 4, 4), torch.zeros(2, 2, 4, 4, 4)], dim=1)
    source.record(torch.tensor([0, 1]), two.marginal(missed, annotated), label, annotated)
    assert source.difficulty == pytest.approx([1 - 1 / 17, (1 - 1 / 17) / 2], abs=1e-4)


def test_every_label_gets_the_same_share_of_the_draws_by_rarity() -> None:
    two = LabelSet(labels=(Label(name="common", value=1), Label(name="rare", value=2)))
    grid = Geometry.from_spacing((4, 4, 4), (1.0, 1.0, 1.0))
    image = np.zeros((1, 4, 4, 4), np.float32)
    having = [(), (1,), (1,), (1, 2), ()]
    found = []
    for number, values in enumerate(having):
        label = image.copy()
        for value in values:
            label[0, value] = value
        found.append(training_case(f"c{number}", Prepared(image, label, grid, grid), two))
    plan = TrainingSettings(total_steps=1, batch_size=5, workers=0, rare_labels=0.5)
    source = Stream(Patches(found, PatchSettings(size=(4, 4, 4)), [], seed=2), two, plan)
    by_rarity = np.array([0, 1 / 6, 1 / 6, 1 / 6 + 1 / 2, 0])
    assert source._weights() == pytest.approx(0.5 / 5 + 0.5 * by_rarity)
    counts = Counter(case for batch in shown(source, range(200)) for case in batch)
    assert [counts[case] / 1000 for case in range(5)] == pytest.approx(0.1 + 0.5 * by_rarity, abs=0.03)


def test_rounds_are_whole_epochs_and_their_weights_are_kept_for_a_stop() -> None:
    source = stream(10, hard_cases=1.0)
    assert source.round_epochs == 10
    assert shown(source, range(10)) == shown(stream(10, hard_cases=1.0), range(10))
    source.difficulty[:] = [9, *[1] * 9]
    whole = shown(source, range(10, 60))
    counts = Counter(case for batch in whole[15:40] for case in batch)  # steps 25 to 49: the second round
    assert counts[0] == 50
    assert set(source.weights) == {1, 2}
    again = stream(10, hard_cases=1.0)
    again.load_state_dict(source.state_dict())
    assert shown(again, range(40, 60)) == whole[30:]


@pytest.mark.parametrize("count", [1, 3, 7, 101])
def test_every_step_comes_once_whatever_the_number_of_cases(count: int) -> None:
    even, hard = stream(count), stream(count, hard_cases=0.5)
    assert len(shown(even, range(80))) == len(shown(hard, range(80))) == 80
    assert shown(hard, range(5)) == shown(stream(count, hard_cases=0.5), range(5))
    assert np.isnan(hard.difficulty).all()


def test_workers_draw_the_same(tmp_path: Path) -> None:
    alone, helped = stream(10, hard_cases=0.7), stream(10, hard_cases=0.7, workers=2)
    for source in (alone, helped):
        source.difficulty[:] = np.arange(10)
    assert shown(alone, range(40)) == shown(helped, range(40))
