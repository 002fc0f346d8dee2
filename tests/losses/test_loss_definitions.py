"""The losses beside one another, beside MONAI's, and in answers known by arithmetic."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from medseg.config import validate
from medseg.errors import ConfigError
from medseg.labels import Label, LabelSet
from medseg.losses import (
    CrossEntropyConfig,
    DiceCEConfig,
    DiceConfig,
    FocalConfig,
    LossConfig,
    SumConfig,
    TverskyConfig,
    build_loss,
)
from medseg.losses.deep_supervision_module import thinned

TWO = (Label(name="anterior", value=1), Label(name="posterior", value=2))
EXCLUSIVE = LabelSet(labels=TWO)
OVERLAPPING = LabelSet(labels=TWO, kind="overlapping")


def drawn() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return 2 * torch.randn(2, 3, 6, 5, 4), torch.randint(3, (2, 1, 6, 5, 4))


def cost(config: LossConfig, logits: Any, label: torch.Tensor, labels: LabelSet = EXCLUSIVE) -> float:
    return float(build_loss(config, labels)(logits, label))


def test_dice_by_hand() -> None:
    # Four voxels, p = 3/4 and 1/4 for the label on two each, truth on the first three: TP 7/4, sums 2 and 3.
    logit = torch.log(torch.tensor(3.0))
    logits = torch.stack([torch.zeros(4), torch.stack([logit, logit, -logit, -logit])])[None, :, :, None]
    label = torch.tensor([1, 1, 1, 0]).view(1, 1, 4, 1)
    labels = LabelSet(labels=TWO[:1])
    assert cost(DiceConfig(smooth=1e-9), logits, label, labels) == pytest.approx(1 - 2 * (7 / 4) / 5)
    assert cost(DiceConfig(smooth=1.0), logits, label, labels) == pytest.approx(1 - (2 * (7 / 4) + 1) / 6)


def test_pooled_dice_forgives_a_patch_without_the_label() -> None:
    label = torch.zeros(2, 1, 4, 4, dtype=torch.long)
    label[0, :, :2] = 1
    labels = LabelSet(labels=TWO[:1])
    logits = (labels.one_hot(label) * 2 - 1) * 20
    logits[1, 1, 0, 0] = 60  # one voxel too many in the empty patch
    assert cost(DiceConfig(), logits, label, labels) == pytest.approx(0.5, abs=1e-4)
    assert cost(DiceConfig(batch=True), logits, label, labels) == pytest.approx(1 - 16 / 17, abs=1e-4)


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("include_background", [False, True])
def test_dice_and_tversky_equal_those_of_monai(batch: bool, include_background: bool) -> None:
    from monai.losses.dice import DiceLoss
    from monai.losses.tversky import TverskyLoss

    logits, label = drawn()
    same: dict[str, Any] = {"batch": batch, "include_background": include_background}
    theirs = {"softmax": True, "to_onehot_y": True, **same}
    dice = DiceLoss(smooth_nr=0.5, smooth_dr=0.5, **theirs)(logits, label)
    tversky = TverskyLoss(alpha=0.2, beta=0.9, smooth_nr=0.25, smooth_dr=0.25, **theirs)(logits, label)
    assert cost(DiceConfig(smooth=0.5, **same), logits, label) == pytest.approx(float(dice), rel=1e-5)
    ours = cost(TverskyConfig(alpha=0.2, beta=0.9, smooth=0.5, **same), logits, label)
    assert ours == pytest.approx(float(tversky), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_equals_that_of_monai(gamma: float) -> None:
    from monai.losses.focal_loss import FocalLoss

    logits, label = drawn()
    flags = logits[:, :2] > 0.3
    softmax = FocalLoss(gamma=gamma, use_softmax=True, to_onehot_y=True, include_background=True)(logits, label)
    sigmoid = FocalLoss(gamma=gamma, alpha=0.3)(logits[:, 1:], flags.float())
    assert cost(FocalConfig(gamma=gamma), logits, label) == pytest.approx(3 * float(softmax), rel=1e-5)  # mean over K
    ours = cost(FocalConfig(gamma=gamma, alpha=0.3), logits[:, 1:], flags, OVERLAPPING)
    assert ours == pytest.approx(float(sigmoid), rel=1e-5)


def test_cross_entropy_equals_that_of_torch() -> None:
    logits, label = drawn()
    torchs = torch.nn.functional.cross_entropy(logits, label[:, 0])
    assert cost(CrossEntropyConfig(), logits, label) == pytest.approx(float(torchs), rel=1e-6)
    ignoring = LabelSet(labels=TWO, ignore=7)
    label[:, :, :2] = 7
    torchs = torch.nn.functional.cross_entropy(logits, label[:, 0], ignore_index=7)
    assert cost(CrossEntropyConfig(), logits, label, ignoring) == pytest.approx(float(torchs), rel=1e-6)


@pytest.mark.parametrize("labels", [EXCLUSIVE, OVERLAPPING], ids=["exclusive", "overlapping"])
def test_special_cases_coincide_exactly(labels: LabelSet) -> None:
    logits, label = drawn()
    if not labels.is_exclusive:
        logits, label = logits[:, 1:], label.repeat(1, 2, 1, 1, 1) > 1
    assert cost(TverskyConfig(alpha=0.5, beta=0.5), logits, label, labels) == cost(DiceConfig(), logits, label, labels)
    focal, plain = (cost(config, logits, label, labels) for config in (FocalConfig(gamma=0), CrossEntropyConfig()))
    assert focal == plain


def test_beta_weighs_misses_and_alpha_weighs_false_alarms() -> None:
    label = torch.zeros(1, 1, 8, 8, dtype=torch.long)
    label[:, :, 2:6] = 1
    labels = LabelSet(labels=TWO[:1])
    truth = label.float()
    too_little, too_much = truth.clone(), truth.clone()
    too_little[:, :, 2:4], too_much[:, :, :2] = 0, 1
    missing, excess = ((torch.cat((1 - one, one), dim=1) * 2 - 1) * 3 for one in (too_little, too_much))
    betas = [cost(TverskyConfig(alpha=0.5, beta=beta), missing, label, labels) for beta in (0.1, 0.5, 0.9)]
    alphas = [cost(TverskyConfig(alpha=alpha, beta=0.5), excess, label, labels) for alpha in (0.1, 0.5, 0.9)]
    assert betas == sorted(set(betas))
    assert alphas == sorted(set(alphas))

    pushes = []  # towards the label, where it is missed
    for beta in (0.1, 0.5, 0.9):
        logits = missing.clone().requires_grad_()
        build_loss(TverskyConfig(alpha=1 - beta, beta=beta), labels)(logits, label).backward()
        assert logits.grad is not None
        pushes.append(-float(logits.grad[:, 1, 2:4].sum()))
    assert pushes == sorted(set(pushes))


def test_focal_counts_easy_voxels_less() -> None:
    logits = torch.tensor([[0.0, 4.0], [0.0, -1.0]]).T.reshape(1, 2, 2, 1)  # one easy voxel, one hard
    label = torch.ones(1, 1, 2, 1)
    labels = LabelSet(labels=TWO[:1])
    p = torch.tensor([4.0, -1.0]).sigmoid()
    expected = ((1 - p) ** 2 * -p.log()).mean()
    assert cost(FocalConfig(gamma=2), logits, label, labels) == pytest.approx(float(expected), rel=1e-5)


def test_weighted_sum_is_the_sum_of_its_parts() -> None:
    logits, label = drawn()
    parts = {"dice": DiceConfig(batch=True), "cross_entropy": CrossEntropyConfig()}
    terms = [{"weight": 0.5, "loss": {"name": "dice", "batch": True}}, {"weight": 2, "loss": {"name": "cross_entropy"}}]
    total = cost(validate(SumConfig, {"terms": terms}, "experiment.yaml"), logits, label)
    by_hand = 0.5 * cost(parts["dice"], logits, label) + 2 * cost(parts["cross_entropy"], logits, label)
    assert total == pytest.approx(by_hand, rel=1e-6)
    assert cost(DiceCEConfig(dice_weight=0.5, cross_entropy_weight=2), logits, label) == pytest.approx(total, rel=1e-6)


def test_deep_supervision_halves_the_weight_stage_by_stage() -> None:
    logits, label = torch.randn(2, 3, 8, 8, 4), torch.randint(3, (2, 1, 8, 8, 4))
    stages = [logits, torch.randn(2, 3, 4, 4, 4), torch.randn(2, 3, 2, 2, 2)]
    config = DiceCEConfig()
    alone = [cost(config, stages[0], label), cost(config, stages[1], label[:, :, ::2, ::2])]
    alone.append(cost(config, stages[2], label[:, :, ::4, ::4, ::2]))
    expected = (4 * alone[0] + 2 * alone[1] + alone[2]) / 7
    assert cost(config, stages, label) == pytest.approx(expected, rel=1e-6)
    assert cost(config, [logits], label) == alone[0]


def test_thinned_label_keeps_its_values_and_dtype() -> None:
    label = torch.arange(64).reshape(1, 1, 8, 8).to(torch.uint8)
    assert thinned(label, torch.zeros(1, 2, 4, 2)).tolist() == [[[[0, 4], [16, 20], [32, 36], [48, 52]]]]
    assert thinned(label, torch.zeros(1, 2, 8, 8)) is label


@pytest.mark.parametrize(
    ("settings", "content", "says"),
    [
        (TverskyConfig, {"alpha": 0, "beta": 0}, "no error would count"),
        (TverskyConfig, {"alpha": -1}, "alpha"),
        (DiceConfig, {"smooth": 0}, "smooth"),
        (DiceCEConfig, {"dice_weight": 0, "cross_entropy_weight": 0}, "nothing would be learned"),
        (FocalConfig, {"alpha": 2}, "alpha"),
        (SumConfig, {"terms": []}, "terms"),
        (SumConfig, {"terms": [{"loss": {"name": "dise"}}]}, "did you mean 'dice'"),
        (SumConfig, {"terms": [{"loss": {"name": "dice", "smoth": 1}}]}, "did you mean 'smooth'"),
        (SumConfig, {"terms": [{"loss": {"name": "sum", "terms": []}}]}, "'sum' is not known"),
    ],
)
def test_wrong_settings_are_refused_with_the_reason(settings: type[Any], content: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(settings, content, "experiment.yaml")
    assert says in str(caught.value)
