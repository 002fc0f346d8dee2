"""Mixed batches by arithmetic: what was pasted or added, and what the loss is asked against."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medseg.training.mixing import MIXES, CutMix, Mixed, MixUp

IMAGES = torch.stack([torch.full((1, 8, 10, 6), float(number)) for number in range(3)])
LABELS = (IMAGES * 10).int()
BATCH = Mixed(IMAGES, [(LABELS, 1.0)], torch.arange(3))


@pytest.mark.parametrize("name", MIXES.names())
def test_the_chance_alone_decides_and_nothing_is_changed_in_place(name: str) -> None:
    mix = MIXES[name].model_validate({"name": name, "probability": 1.0})
    before = IMAGES.clone(), LABELS.clone()
    one, other, third = (mix(BATCH, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(one.images, other.images)
    assert not torch.equal(one.images, third.images)
    assert torch.equal(IMAGES, before[0])
    assert torch.equal(LABELS, before[1])
    assert sum(share for _, share in one.labels) == pytest.approx(1)


@pytest.mark.parametrize("name", MIXES.names())
def test_a_single_patch_stays_as_it_is_and_batches_are_mixed_as_often_as_asked(name: str) -> None:
    always, seldom, never = (MIXES[name].model_validate({"name": name, "probability": p}) for p in (1.0, 0.25, 0.0))
    (single,) = [piece for number, piece in enumerate(BATCH.pieces(3)) if number == 1]
    assert always(single, np.random.default_rng(0)) == single
    drawn = [[one.is_drawn(np.random.default_rng(seed)) for seed in range(400)] for one in (always, seldom, never)]
    assert all(drawn[0])
    assert np.mean(drawn[1]) == pytest.approx(0.25, abs=0.06)
    assert not any(drawn[2])


def test_cutmix_pastes_one_box_of_the_patch_before_with_its_label() -> None:
    shares = []
    for seed in range(200):
        mixed = CutMix(probability=1.0)(BATCH, np.random.default_rng(seed))
        ((labels, share),) = mixed.labels
        assert share == 1
        assert torch.equal((mixed.images * 10).int(), labels)  # image and label moved together
        foreign = mixed.images[1, 0] == 0  # patch 1 holds a box of patch 0
        assert set(mixed.images[1].unique().tolist()) <= {0.0, 1.0}
        lengths = [int(foreign.any(dim=[a for a in range(3) if a != axis]).sum()) for axis in range(3)]
        assert int(foreign.sum()) == np.prod(lengths)
        shares.append(float(foreign.float().mean()))
    assert np.mean(shares) == pytest.approx(0.5, abs=0.06)


def test_mixup_is_a_weighted_sum_of_images_and_of_losses() -> None:
    mixed = MixUp(probability=1.0, concentration=1.0)(BATCH, np.random.default_rng(3))
    (own, share), (other, rest) = mixed.labels
    assert torch.equal(own, LABELS)
    assert torch.equal(other, LABELS[[2, 0, 1]])
    expected = [0 * share + 2 * rest, 1 * share + 0 * rest, 2 * share + 1 * rest]
    assert mixed.images[:, 0, 0, 0, 0].tolist() == pytest.approx(expected)
