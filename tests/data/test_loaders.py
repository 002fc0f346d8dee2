"""Batches depend on (seed, epoch, position) alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from medseg.config import validate
from medseg.data.augmentation import AUGMENTATIONS, Affine, Noise
from medseg.data.loaders import Draw, DrawOrder, Patches, TrainingCase, batches, training_case
from medseg.data.monai_transforms import cut
from medseg.data.patches import PatchSettings
from medseg.data.preprocessing import Prepared
from medseg.geometry import Geometry
from medseg.labels import Label, LabelSet

LABELS = LabelSet(labels=(Label(name="one", value=1), Label(name="five", value=5)))


def case(number: int, shape: tuple[int, ...] = (12, 10, 9)) -> TrainingCase:
    rng = np.random.default_rng(number)
    label = np.zeros((1, *shape), dtype=np.float32)
    label[0, 2, 3, 4], label[0, 7:9, 5, 5] = 1, 5
    grid = Geometry.from_spacing(shape, (1.0, 1.0, 1.0))
    return training_case(
        f"case{number}", Prepared(rng.normal(size=(1, *shape)).astype("f4"), label, grid, grid), LABELS
    )


def patches(seed: int = 0, **settings: object) -> Patches:
    patch = PatchSettings.model_validate({"size": (8, 8, 8), **settings})
    return Patches([case(i) for i in range(5)], patch, [Affine(probability=1.0), Noise(probability=1.0)], seed)


def stream(workers: int, steps: range, seed: int = 0) -> torch.Tensor:
    return torch.stack([batch["image"] for batch in batches(patches(seed), 3, steps, workers)])


def test_every_epoch_shows_every_case_once_in_another_order() -> None:
    draws = [draw for batch in DrawOrder(5, 2, range(10), seed=1) for draw in batch]
    orders = [[draw.case for draw in draws[5 * epoch : 5 * epoch + 5]] for epoch in range(4)]
    assert all(sorted(order) == [0, 1, 2, 3, 4] for order in orders)
    assert len({tuple(order) for order in orders}) > 1
    assert [draw.epoch for draw in draws] == [number // 5 for number in range(20)]


def test_starting_late_continues_the_same_stream() -> None:
    whole = list(DrawOrder(7, 3, range(12), seed=4))
    assert list(DrawOrder(7, 3, range(5, 12), seed=4)) == whole[5:]
    assert torch.equal(stream(0, range(2, 4)), stream(0, range(4))[2:])


def test_any_number_of_workers_gives_the_same_batches() -> None:
    alone = stream(0, range(4))
    assert torch.equal(alone, stream(1, range(4)))
    assert torch.equal(alone, stream(2, range(4)))
    assert not torch.equal(alone, stream(0, range(4), seed=1))


@pytest.mark.parametrize("name", AUGMENTATIONS.names())
def test_a_patch_depends_on_its_draw_and_not_on_those_before(name: str) -> None:
    config = validate(AUGMENTATIONS[name], {"name": name, "probability": 1.0}, name)
    cases = [case(number) for number in range(2)]
    if name == "colour":
        cases = [replace(one, image=one.image.repeat(3, 1, 1, 1)) for one in cases]

    def drawn(draws: list[Draw]) -> torch.Tensor:
        patches = Patches(cases, PatchSettings(size=(8, 8, 8)), [config], seed=5)
        return [patches[draw]["image"] for draw in draws][-1]

    first, second = Draw(0, 0, 0), Draw(0, 1, 1)
    assert torch.equal(drawn([second]), drawn([first, second]))
    assert not torch.equal(drawn([second]), drawn([Draw(1, 1, 1)]))


@pytest.mark.parametrize("name", AUGMENTATIONS.names())
@pytest.mark.parametrize("workers", [0, 1])
def test_patches_that_are_changed_later_are_those_that_workers_change(name: str, workers: int) -> None:
    config = validate(AUGMENTATIONS[name], {"name": name, "probability": 0.8}, name)
    cases = [case(number) for number in range(3)]
    if name == "colour":
        cases = [replace(one, image=one.image.repeat(3, 1, 1, 1)) for one in cases]
    patch = PatchSettings(size=(8, 8, 8))
    at_once = Patches(cases, patch, [config, Noise()], seed=5)
    later = Patches(cases, patch, [config, Noise()], seed=5, changed_later=True)
    pairs = list(zip(batches(at_once, 2, range(3), workers), batches(later, 2, range(3), workers), strict=True))
    for wanted, cut_only in pairs:
        found = later.changed(cut_only)
        assert found.keys() == wanted.keys()
        assert torch.equal(found["image"], wanted["image"])
        assert torch.equal(found["label"], wanted["label"])
        assert found["case_id"] == wanted["case_id"]
    assert not all(torch.equal(wanted["image"], cut_only["image"]) for wanted, cut_only in pairs)


def test_loading_leaves_the_networks_random_numbers_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    stream(0, range(2))
    assert torch.equal(torch.rand(3), expected)


def test_a_foreground_share_of_one_always_shows_a_label() -> None:
    drawn = patches(foreground_share=1.0)
    drawn.change.transforms = ()
    seen = [drawn[draw]["label"] for batch in DrawOrder(5, 4, range(20), seed=0) for draw in batch]
    assert all(label.max() > 0 for label in seen)
    assert sum(bool((label == 1).any()) for label in seen) > 20  # one voxel of label 1 is drawn as often as label 5


def test_patches_larger_than_the_case_are_padded_with_its_minimum() -> None:
    drawn = Patches([case(0)], PatchSettings(size=(16, 16, 16)), [], 0)
    item = drawn[next(iter(DrawOrder(1, 1, range(1), 0)))[0]]
    assert item["image"].shape == (1, 16, 16, 16)
    assert item["image"].min() == case(0).image.min()
    assert item["label"].sum() == case(0).label.sum()


def test_each_step_takes_one_of_the_sizes_and_all_of_them_in_turn() -> None:
    drawn = patches(smaller=[(4, 4, 8), (6, 8, 4)])
    found = [tuple(batch["image"].shape) for batch in batches(drawn, 3, range(60), workers=1)]
    counts = {shape: found.count(shape) for shape in set(found)}
    assert set(counts) == {(3, 1, 8, 8, 8), (3, 1, 4, 4, 8), (3, 1, 6, 8, 4)}
    assert min(counts.values()) > 10
    late = [tuple(batch["image"].shape) for batch in batches(drawn, 3, range(50, 60), workers=0)]
    assert late == found[50:]


def test_slices_of_a_volume_feed_a_2d_network() -> None:
    drawn = Patches([case(0)], PatchSettings(size=(8, 8), slice_axis=2), [Affine(probability=1.0)], 0)
    item = drawn[next(iter(DrawOrder(1, 1, range(1), 0)))[0]]
    assert item["image"].shape == item["label"].shape == (1, 8, 8)


@pytest.mark.parametrize("start", [(0, 0), (-2, 1), (3, -1), (-1, -1)])
def test_cut_is_a_window_on_a_padded_array(start: tuple[int, int]) -> None:
    array = torch.arange(20.0).view(1, 4, 5)
    padded = np.pad(array.numpy(), ((0, 0), (10, 10), (10, 10)), constant_values=-1)
    expected = padded[:, 10 + start[0] : 14 + start[0], 10 + start[1] : 13 + start[1]]
    assert np.array_equal(cut(array, start, (4, 3), -1.0).numpy(), expected)
