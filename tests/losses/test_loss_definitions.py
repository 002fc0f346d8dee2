"""The losses beside one another, beside MONAI's, and in answers known by arithmetic."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from medseg.config import validate
from medseg.errors import ConfigError
from medseg.labels import Label, LabelSet
from medseg.losses import (
    BoundaryCEConfig,
    CrossEntropyConfig,
    DiceCEConfig,
    DiceConfig,
    FocalConfig,
    FocalTverskyConfig,
    GeneralisedDiceConfig,
    JaccardConfig,
    LossConfig,
    LovaszConfig,
    Ramp,
    SumConfig,
    TopKConfig,
    TverskyConfig,
    UnifiedFocalConfig,
    build_loss,
)
from medseg.losses.deep_supervision_module import thinned
from medseg.losses.lovasz_module import jaccard_slopes
from medseg.losses.overlap_module import steep_power

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
    by_voxel = (CrossEntropyConfig(), FocalConfig(gamma=0))
    plain, focal = (cost(config, logits, label, labels) for config in by_voxel)
    assert focal == plain
    same = (TopKConfig(share=1), BoundaryCEConfig(w0=0), CrossEntropyConfig(weights=(2.0,) * labels.channels))
    if labels.is_exclusive:  # else a weight is for inside, against 1 outside
        assert cost(same[2], logits, label, labels) == pytest.approx(plain, rel=1e-6)
    assert [cost(config, logits, label, labels) for config in same[:2]] == pytest.approx([plain] * 2, rel=1e-6)
    tversky = cost(TverskyConfig(alpha=0.2, beta=0.9), logits, label, labels)
    assert cost(FocalTverskyConfig(alpha=0.2, beta=0.9, gamma=1), logits, label, labels) == pytest.approx(tversky)
    jaccard = cost(TverskyConfig(alpha=1, beta=1), logits, label, labels)
    assert cost(JaccardConfig(), logits, label, labels) == jaccard


@pytest.mark.parametrize("asymmetric", [True, False])
def test_unified_focal_without_gamma_is_cross_entropy_and_tversky(asymmetric: bool) -> None:
    logits, label = drawn()
    plain = cost(CrossEntropyConfig(), logits, label)
    tversky = cost(TverskyConfig(alpha=0.2, beta=0.8, include_background=True), logits, label)
    even = UnifiedFocalConfig(weight=1, delta=0.5, gamma=0, asymmetric=asymmetric)
    assert cost(even, logits, label) == pytest.approx(plain / 2, rel=1e-6)
    region = UnifiedFocalConfig(weight=0, delta=0.8, gamma=0, asymmetric=asymmetric)
    assert cost(region, logits, label) == pytest.approx(tversky, rel=1e-6)


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


def test_weighted_cross_entropy_equals_that_of_torch() -> None:
    logits, label = drawn()
    weights = (0.2, 3.0, 1.5)
    torchs = torch.nn.functional.cross_entropy(logits, label[:, 0], weight=torch.tensor(weights))
    assert cost(CrossEntropyConfig(weights=weights), logits, label) == pytest.approx(float(torchs), rel=1e-6)

    flags, inside = (logits[:, :2] > 0.3).float(), torch.tensor([4.0, 0.5]).view(1, 2, 1, 1, 1)
    total = torch.nn.functional.binary_cross_entropy_with_logits(
        logits[:, 1:], flags, pos_weight=inside, reduction="sum"
    )
    mean = total / torch.where(flags > 0, inside, 1.0).sum()
    ours = cost(CrossEntropyConfig(weights=(4.0, 0.5)), logits[:, 1:], flags, OVERLAPPING)
    assert ours == pytest.approx(float(mean), rel=1e-6)


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("absent", [False, True])
def test_generalised_dice_equals_that_of_monai(batch: bool, absent: bool) -> None:
    from monai.losses.dice import GeneralizedDiceLoss

    logits, label = drawn()
    if absent:
        label[label == 2] = 0
    monais = GeneralizedDiceLoss(softmax=True, to_onehot_y=True, batch=batch, smooth_nr=0, smooth_dr=0)(logits, label)
    ours = cost(GeneralisedDiceConfig(batch=batch, smooth=1e-9), logits, label)
    assert ours == pytest.approx(float(monais), rel=1e-5)


def test_unified_focal_equals_that_of_monai() -> None:
    from monai.losses.unified_focal_loss import AsymmetricFocalLoss, AsymmetricFocalTverskyLoss

    logits, label = drawn()
    label = label.clamp(max=1)
    labels = LabelSet(labels=TWO[:1])
    p, truth = logits[:, :2].softmax(dim=1), labels.one_hot(label)
    focal = AsymmetricFocalLoss(delta=0.6, gamma=0.4)(p, truth)
    tversky = AsymmetricFocalTverskyLoss(delta=0.6, gamma=0.4)(p, truth)
    ours = [UnifiedFocalConfig(weight=weight, delta=0.6, gamma=0.4) for weight in (1, 0)]
    found = [cost(config, logits[:, :2], label, labels) for config in ours]
    assert found == pytest.approx([2 * float(focal), float(tversky)], rel=1e-5)  # theirs is a mean over outputs


def test_generalised_dice_lets_a_small_label_count_as_much_as_a_large_one() -> None:
    label = torch.zeros(1, 1, 20, 20)
    label[:, :, :10] = 1  # 200 voxels
    label[:, :, 15, 15] = 2  # one voxel
    truth = EXCLUSIVE.one_hot(label)
    half = ((truth * 2 - 1) * 50).clone()
    half[:, :, 15, 15] = half[:, :, 0, 19].flip(0)  # the small label is lost to the background
    without_small = cost(GeneralisedDiceConfig(), half, label)
    assert without_small > 0.9 > 0.4 > cost(DiceConfig(include_background=True), half, label)


def test_a_power_below_one_has_a_bounded_slope_down_to_zero() -> None:
    missed = torch.tensor([0.0, 1e-30, 1e-3], requires_grad=True)  # of a label that is right, nearly right, and so on
    powers = steep_power(missed, 0.75)
    powers.sum().backward()
    assert powers.tolist() == pytest.approx([0, 0, 1e-3**0.75], abs=1e-9)
    assert missed.grad is not None
    assert all(0 <= slope < 100 for slope in missed.grad.tolist())


def test_top_k_is_the_mean_of_the_hardest() -> None:
    logits = torch.zeros(1, 2, 10, 1)
    logits[0, 1, :, 0] = torch.tensor([9.0, 8, 7, 6, 5, 4, 3, 2, -2, -4])
    label, labels = torch.ones(1, 1, 10, 1), LabelSet(labels=TWO[:1])
    hardest = torch.nn.functional.softplus(torch.tensor([2.0, 4.0])).mean()
    assert cost(TopKConfig(share=0.2), logits, label, labels) == pytest.approx(float(hardest), rel=1e-6)
    assert cost(TopKConfig(share=0.01), logits, label, labels) == pytest.approx(float(torch.tensor(4.0).exp().log1p()))


@pytest.mark.parametrize("batch", [False, True])
def test_lovasz_of_a_certain_prediction_is_the_jaccard_loss(batch: bool) -> None:
    torch.manual_seed(0)
    label, found = torch.randint(3, (2, 1, 6, 5)), torch.randint(3, (2, 1, 6, 5))
    logits = EXCLUSIVE.one_hot(found) * 1e4
    pooled = JaccardConfig(batch=batch, include_background=True, smooth=1e-9)
    assert cost(LovaszConfig(batch=batch), logits, label) == pytest.approx(cost(pooled, logits, label), rel=1e-5)
    # The hinge of a logit of 1 on the wrong side is 2, of one on the right side 0.
    signs = torch.where(found.repeat(1, 2, 1, 1) == torch.tensor([1, 2]).view(1, 2, 1, 1), 1.0, -1.0)
    flags = label.repeat(1, 2, 1, 1) == torch.tensor([1, 2]).view(1, 2, 1, 1)
    certain = JaccardConfig(batch=batch, smooth=1e-9)
    hinge = cost(LovaszConfig(batch=batch), signs, flags, OVERLAPPING)
    assert hinge == pytest.approx(2 * cost(certain, signs * 1e4, flags, OVERLAPPING), rel=1e-5)


def test_lovasz_slopes_stay_exact_among_a_million_voxels() -> None:
    torch.manual_seed(0)
    errors, truth = torch.rand(1, 1_000_000), (torch.rand(1, 1_000_000) < 0.1).float()
    order = errors[0].argsort(descending=True, stable=True)
    is_true = truth[0, order].double()
    union = is_true.sum() + (1 - is_true).cumsum(0)
    losses = 1 - (is_true.sum() - is_true.cumsum(0)) / union
    expected = torch.diff(losses, prepend=torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(jaccard_slopes(errors, truth)[0, order].double(), expected, rtol=1e-5, atol=1e-14)


def test_raising_beta_raises_the_recall_of_a_model_that_cannot_be_right() -> None:
    torch.manual_seed(0)
    label = torch.zeros(4, 1, 24, 24)
    label[:, :, 8:16, 6:18] = 1
    image = label + 0.8 * torch.randn(4, 1, 24, 24)  # a grey value decides, and label and background overlap in it
    labels, recalls, precisions = LabelSet(labels=TWO[:1]), [], []
    for beta in (0.1, 0.3, 0.5, 0.7, 0.9):
        slope, offset = torch.ones(1, requires_grad=True), torch.zeros(1, requires_grad=True)
        optimiser = torch.optim.Adam([slope, offset], lr=0.1)
        loss = build_loss(TverskyConfig(alpha=1 - beta, beta=beta, batch=True), labels)
        for _ in range(150):
            optimiser.zero_grad()
            score = slope * image + offset
            loss(torch.cat((torch.zeros_like(score), score), dim=1), label).backward()
            optimiser.step()
        found = (slope * image + offset > 0).detach()
        hits = float((found & (label > 0)).sum())
        recalls.append(hits / float(label.sum()))
        precisions.append(hits / float(found.sum()))
    assert recalls == sorted(recalls)
    assert precisions == sorted(precisions, reverse=True)
    assert recalls[-1] > recalls[0] + 0.2


def test_weighted_sum_is_the_sum_of_its_parts() -> None:
    logits, label = drawn()
    parts = {"dice": DiceConfig(batch=True), "cross_entropy": CrossEntropyConfig()}
    terms = [{"weight": 0.5, "loss": {"name": "dice", "batch": True}}, {"weight": 2, "loss": {"name": "cross_entropy"}}]
    total = cost(validate(SumConfig, {"terms": terms}, "experiment.yaml"), logits, label)
    by_hand = 0.5 * cost(parts["dice"], logits, label) + 2 * cost(parts["cross_entropy"], logits, label)
    assert total == pytest.approx(by_hand, rel=1e-6)
    assert cost(DiceCEConfig(dice_weight=0.5, cross_entropy_weight=2), logits, label) == pytest.approx(total, rel=1e-6)


def test_weights_ramp_with_the_progress_of_training() -> None:
    logits, label = drawn()
    terms = [
        {"loss": {"name": "dice"}},
        {"weight": 2, "ramp": {"first": 0.1, "start": 0.2, "end": 0.6}, "loss": {"name": "boundary"}},
    ]
    config = validate(SumConfig, {"terms": terms}, "experiment.yaml")
    loss = build_loss(config, EXCLUSIVE)
    dice, boundary = (cost(term.loss, logits, label) for term in config.terms)
    for progress, factor in ((0, 0.1), (0.2, 0.1), (0.3, 0.325), (0.4, 0.55), (0.6, 1), (1, 1)):
        expected = dice + 2 * factor * boundary
        assert float(loss(logits, label, progress)) == pytest.approx(expected, rel=1e-6)
    assert float(loss([logits], label)) == pytest.approx(float(config.build(EXCLUSIVE)(logits, label)), rel=1e-6)


def test_a_cosine_ramp_starts_and_ends_flat() -> None:
    ramp = Ramp(shape="cosine", first=2, last=0)
    assert [ramp.factor(progress) for progress in (0, 0.25, 0.5, 1)] == pytest.approx([2, 1.70710678, 1, 0])


def test_deep_supervision_halves_the_weight_stage_by_stage() -> None:
    logits, label = torch.randn(2, 3, 8, 8, 4), torch.randint(3, (2, 1, 8, 8, 4))
    stages = [logits, torch.randn(2, 3, 4, 4, 4), torch.randn(2, 3, 2, 2, 2)]
    config = DiceCEConfig()
    alone = [cost(config, stages[0], label), cost(config, stages[1], label[:, :, ::2, ::2])]
    alone.append(cost(config, stages[2], label[:, :, ::4, ::4, ::2]))
    expected = (4 * alone[0] + 2 * alone[1] + alone[2]) / 7
    assert cost(config, stages, label) == pytest.approx(expected, rel=1e-6)
    assert cost(config, [logits], label) == alone[0]
    terms = [{"loss": {"name": "dice_ce"}}, {"weight": 0.5, "loss": {"name": "hausdorff"}}]
    summed = validate(SumConfig, {"terms": terms}, "experiment.yaml")
    shape = cost(summed.terms[1].loss, stages, label)
    assert cost(summed, stages, label) == pytest.approx(expected + 0.5 * shape, rel=1e-6)


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
        (SumConfig, {"terms": [{"ramp": {}, "loss": {"name": "dice"}}]}, "every weight is 0 at 0 of training"),
        (SumConfig, {"terms": [{"ramp": {"first": 1, "last": 0, "end": 0.5}, "loss": {"name": "dice"}}]}, "0 at 0.5"),
        (Ramp, {"start": 0.5, "end": 0.5}, "let start be lower"),
        (Ramp, {"last": 0}, "would never count"),
        (TopKConfig, {"share": 0}, "share"),
        (FocalTverskyConfig, {"gamma": 0.5}, "gamma"),
        (FocalTverskyConfig, {"alpha": 0, "beta": 0}, "no error would count"),
        (CrossEntropyConfig, {"weights": [0, 0]}, "nothing would be learned"),
        (CrossEntropyConfig, {"weights": "inverse_frequenzy"}, "inverse_frequency"),
        (CrossEntropyConfig, {"weights": [1, -1]}, "weights"),
    ],
)
def test_wrong_settings_are_refused_with_the_reason(settings: type[Any], content: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        validate(settings, content, "experiment.yaml")
    assert says in str(caught.value)
