"""Losses that look at shapes: their distances and skeletons, and what ignored voxels do to them."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from medseg.labels import Label, LabelSet
from medseg.losses import BoundaryCEConfig, BoundaryConfig, ClDiceConfig, HausdorffConfig, LossConfig, build_loss
from medseg.losses.cldice_module import soft_skeleton
from medseg.losses.distance_maps import to_other_side
from tests.losses.references import other_side, skeleton

ONE = LabelSet(labels=(Label(name="vessel", value=1),))
IGNORING = LabelSet(labels=ONE.labels, ignore=9)
BOUND = [BoundaryConfig(), BoundaryCEConfig(), HausdorffConfig()]


def row(*values: int) -> torch.Tensor:
    """A label `(1, 1, N, 1)`."""
    return torch.tensor(values).view(1, 1, -1, 1)


def certain(label: torch.Tensor) -> torch.Tensor:
    return (ONE.one_hot(label) * 2 - 1) * 50


def cost(config: LossConfig, logits: torch.Tensor, label: torch.Tensor, labels: LabelSet = ONE) -> float:
    return float(build_loss(config, labels)(logits, label))


def distances(label: torch.Tensor, labels: LabelSet = ONE) -> list[float]:
    inside = labels.one_hot(label)[:, 1:] > 0
    return to_other_side(inside, labels.counted(label), torch.float64).flatten().tolist()


def test_distances_run_to_the_nearest_voxel_on_the_other_side() -> None:
    assert distances(row(0, 0, 0, 1, 1, 0)) == [3, 2, 1, 1, 1, 1]
    assert distances(row(0, 0, 0, 0)) == [0] * 4  # no boundary
    assert distances(row(1, 1, 1, 1)) == [0] * 4


def test_no_distance_runs_to_or_from_an_ignored_voxel() -> None:
    assert distances(row(0, 0, 9, 9, 1, 1), IGNORING) == [4, 3, 0, 0, 3, 4]
    assert distances(row(9, 9, 1, 1), IGNORING) == [0] * 4  # nothing is known to be outside


@pytest.mark.parametrize("size", [(7, 6), (5, 4, 6)])
def test_distances_equal_a_search_of_all_voxels(size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    inside, counted = torch.rand(2, 2, *size) < 0.3, torch.rand(2, 1, *size) < 0.8
    found = to_other_side(inside, counted, torch.float64).numpy()
    for patch, output in np.ndindex(2, 2):
        expected = other_side(inside[patch, output].numpy(), counted[patch, 0].numpy())
        np.testing.assert_allclose(found[patch, output], expected)


def test_boundary_loss_by_hand() -> None:
    label = row(0, 0, 0, 1, 1, 1)
    wrong = certain(row(0, 1, 0, 1, 1, 0))  # 1.5 voxels outside of the boundary, and 2.5 inside
    assert cost(BoundaryConfig(), wrong, label) == pytest.approx((1.5 + 2.5) / 6)


def test_boundary_loss_has_the_slope_of_kervadecs_integral() -> None:
    torch.manual_seed(0)
    label = torch.randint(2, (2, 1, 5, 6))
    logits = torch.randn(2, 2, 5, 6, requires_grad=True)
    build_loss(BoundaryConfig(), ONE)(logits, label).backward()
    signed = []
    for one in label[:, 0].numpy() > 0:
        to_boundary = other_side(one, np.ones_like(one)) - 0.5
        signed.append(np.where(one, -to_boundary, to_boundary))
    again = logits.detach().clone().requires_grad_()
    (torch.from_numpy(np.stack(signed)) * again.softmax(dim=1)[:, 1]).mean().backward()
    assert logits.grad is not None
    assert again.grad is not None
    torch.testing.assert_close(logits.grad, again.grad)


def test_boundary_cross_entropy_by_hand() -> None:
    label, logits = row(0, 0, 1), torch.zeros(1, 2, 3, 1)
    logits[0, 1, :, 0] = torch.tensor([1.0, 2.0, 3.0])
    terms = [math.log1p(math.exp(1)), math.log1p(math.exp(2)), math.log1p(math.exp(-3))]
    weights = [1 + 4 * math.exp(-(d**2) / (2 * 0.7**2)) for d in (1.5, 0.5, 0.5)]
    expected = np.average(terms, weights=weights)
    assert cost(BoundaryCEConfig(w0=4, sigma=0.7), logits, label) == pytest.approx(float(expected), rel=1e-6)


def test_hausdorff_loss_grows_with_the_square_of_how_far_off_a_voxel_is() -> None:
    label = row(1, *[0] * 8)
    near, far = (torch.zeros(1, 2, 9, 1) for _ in range(2))
    for logits, place in ((near, 2), (far, 4)):
        logits[:, :] = certain(label)
        logits[0, :, place, 0] = torch.tensor([-50.0, 50.0])
    # (p - t)^2 = 1 at one voxel: squares of its distances to the label's boundary and to its own, which is 1.
    found = [cost(HausdorffConfig(), logits, label) for logits in (near, far)]
    assert found == pytest.approx([(2**2 + 1) / 9, (4**2 + 1) / 9])


@pytest.mark.parametrize("alpha", [1.0, 2.0])
def test_hausdorff_equals_that_of_monai(alpha: float) -> None:
    from monai.losses.hausdorff_loss import HausdorffDTLoss

    torch.manual_seed(0)
    logits, label = 2 * torch.randn(2, 2, 6, 5, 4), torch.randint(2, (2, 1, 6, 5, 4))
    monais = HausdorffDTLoss(alpha=alpha, softmax=True, to_onehot_y=True)(logits, label)
    assert cost(HausdorffConfig(alpha=alpha), logits, label) == pytest.approx(float(monais), rel=1e-5)


@pytest.mark.parametrize("config", BOUND, ids=lambda config: config.name)
def test_an_ignored_voxel_gets_no_gradient_where_its_neighbours_do(config: LossConfig) -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 8, 1, requires_grad=True)
    build_loss(config, IGNORING)(logits, row(1, 1, 1, 1, 9, 9, 0, 0)).backward()
    assert logits.grad is not None
    assert not logits.grad[:, :, 4:6].any()
    assert logits.grad[:, :, [3, 6]].all()


def test_an_ignored_voxel_draws_no_boundary() -> None:
    label = row(1, 1, 1, 1, 9, 9, 0, 0)
    wrong = certain(row(1, 1, 1, 0, 1, 0, 0, 0))  # 3 voxels from the first that is known to be outside
    assert cost(BoundaryConfig(), wrong, label, IGNORING) == pytest.approx(2.5 / 6)
    assert cost(HausdorffConfig(), wrong, label, IGNORING) == pytest.approx((3**2 + 1) / 6)
    weights = [1 + 4 * math.exp(-((d - 0.5) ** 2) / 2) for d in (6, 5, 4, 3, 3, 4)]
    expected = 50 * weights[3] / sum(weights)
    assert cost(BoundaryCEConfig(w0=4, sigma=1), wrong / 2, label, IGNORING) == pytest.approx(expected, rel=1e-5)


def test_a_patch_without_boundary_has_no_boundary_cost() -> None:
    torch.manual_seed(0)
    logits, label = torch.randn(1, 2, 6, 6), torch.zeros(1, 1, 6, 6)
    assert cost(BoundaryConfig(), logits, label) == 0


@pytest.mark.parametrize("size", [(24, 20), (14, 12, 13)])
@pytest.mark.parametrize("iterations", [0, 3])
def test_soft_skeleton_equals_that_of_grey_morphology(size: tuple[int, ...], iterations: int) -> None:
    from scipy.ndimage import gaussian_filter

    smooth = gaussian_filter(np.random.default_rng(0).random(size), 2)
    mask = (smooth - smooth.min()) / np.ptp(smooth)
    found = soft_skeleton(torch.from_numpy(mask)[None, None], iterations)[0, 0].numpy()
    np.testing.assert_allclose(found, skeleton(mask, iterations), atol=1e-12)


def test_the_skeleton_of_a_bar_is_its_middle_line() -> None:
    mask = torch.zeros(1, 1, 9, 21)
    mask[:, :, 2:7, 2:19] = 1  # 5 voxels wide
    found = soft_skeleton(mask, 3)[0, 0]
    middle = torch.zeros(9, 21)
    middle[4, 4:17] = 1
    assert torch.equal(found[:, 5:16], middle[:, 5:16])
    assert float(found.sum()) < 25  # of 85 voxels; the ends fork into the corners


@pytest.mark.parametrize("iterations", [1, 3])
def test_cldice_equals_that_of_monai(iterations: int) -> None:
    from monai.losses.cldice import SoftclDiceLoss

    torch.manual_seed(0)
    logits, label = 2 * torch.randn(2, 2, 12, 10, 8), torch.randint(2, (2, 1, 12, 10, 8))
    monais = SoftclDiceLoss(iterations, smooth=1e-12, include_background=False, to_onehot_y=True, softmax=True)
    ours = cost(ClDiceConfig(iterations=iterations, smooth=1), logits, label)
    assert ours == pytest.approx(float(monais(logits, label)), rel=1e-5)


def test_cldice_sees_a_gap_that_dice_hardly_does() -> None:
    label = torch.zeros(1, 1, 15, 40)
    label[:, :, 6:9] = 1
    broken, thinned = label.clone(), label.clone()
    broken[:, :, :, 18:22] = 0  # 10 % of the voxels, and the tube is in two
    thinned[:, :, 8, ::3] = 0  # as many or more, and it is whole
    costs = [cost(ClDiceConfig(smooth=1e-3), certain(one), label) for one in (broken, thinned)]
    assert costs[0] > 3 * costs[1]


def test_skeletons_end_at_ignored_voxels() -> None:
    torch.manual_seed(0)
    logits = torch.randn(1, 2, 12, 12)
    label = torch.zeros(1, 1, 12, 12)
    label[:, :, 4:9] = 1
    ignoring = label.clone()
    ignoring[:, :, :, 6:] = 9
    outside = torch.cat((torch.full((1, 1, 12, 6), 50.0), torch.full((1, 1, 12, 6), -50.0)), dim=1)
    cut = torch.cat((logits[..., :6], outside), dim=3)
    background = label.clone()
    background[:, :, :, 6:] = 0
    expected = cost(ClDiceConfig(), cut, background)
    assert cost(ClDiceConfig(), logits, ignoring, IGNORING) == pytest.approx(expected, rel=1e-5)
