"""Contracts that every loss of the catalogue keeps, for exclusive, ignoring and overlapping labels."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax

from medseg.config import Settings, validate
from medseg.labels import Label, LabelSet
from medseg.losses import (
    LOSSES,
    CrossEntropyConfig,
    DiceCEConfig,
    DiceConfig,
    FocalConfig,
    LossConfig,
    SumConfig,
    TverskyConfig,
    build_loss,
)

TWO = (Label(name="anterior", value=1), Label(name="posterior", value=3))
LABEL_SETS = {
    "exclusive": LabelSet(labels=TWO),
    "ignoring": LabelSet(labels=TWO, ignore=255),
    "overlapping": LabelSet(labels=TWO, kind="overlapping"),
}
NEEDED: dict[str, dict[str, Any]] = {
    "sum": {"terms": [{"loss": {"name": "tversky"}}, {"weight": 0.5, "loss": {"name": "focal", "alpha": 0.25}}]},
}
VARIANTS: dict[str, LossConfig] = {
    "dice_pooled": DiceConfig(batch=True, smooth=1.0),
    "dice_with_background": DiceConfig(include_background=True),
    "dice_ce_weighed": DiceCEConfig(dice_weight=0.3, cross_entropy_weight=2.0, batch=False),
    "tversky_pooled": TverskyConfig(alpha=0.1, beta=1.2, batch=True, include_background=True),
    "focal_flat": FocalConfig(gamma=0.5, alpha=0.25),
}
CONFIGS = {name: entry.model_validate(NEEDED.get(name, {})) for name, entry in LOSSES} | VARIANTS
every_loss = pytest.mark.parametrize("config", [pytest.param(config, id=name) for name, config in CONFIGS.items()])
every_set = pytest.mark.parametrize("labels", [pytest.param(labels, id=name) for name, labels in LABEL_SETS.items()])


def drawn_label(labels: LabelSet, size: tuple[int, ...], batch: int = 2) -> torch.Tensor:
    """A label with every value of the set in it, drawn from torch's generator."""
    if not labels.is_exclusive:
        return torch.rand(batch, len(labels.names), *size) < 0.4
    values = torch.tensor([*labels.values, *([] if labels.ignore is None else [labels.ignore])])
    return values[torch.randint(len(values), (batch, 1, *size))].to(torch.uint8)


def sure_logits(labels: LabelSet, label: torch.Tensor, height: float) -> torch.Tensor:
    """Logits of +-height that say exactly what the label says."""
    return (labels.one_hot(label) * 2 - 1) * height


def reference(config: LossConfig, labels: LabelSet, logits: np.ndarray, label: np.ndarray) -> float:
    """The loss by its definition, in float64, voxel lists in place of tensors."""
    match config:
        case DiceCEConfig():
            dice = DiceConfig(batch=config.batch, include_background=config.include_background, smooth=config.smooth)
            return config.dice_weight * reference(dice, labels, logits, label) + (
                config.cross_entropy_weight * reference(CrossEntropyConfig(), labels, logits, label)
            )
        case SumConfig():
            return sum(term.weight * reference(term.loss, labels, logits, label) for term in config.terms)
        case DiceConfig():
            return _overlap(config, 0.5, 0.5, labels, logits, label)
        case TverskyConfig():
            return _overlap(config, config.alpha, config.beta, labels, logits, label)
        case FocalConfig():
            return _focal(config.gamma, config.alpha, labels, logits, label)
        case CrossEntropyConfig():
            return _focal(0.0, None, labels, logits, label)
    raise AssertionError(f"no reference for {config.name}; write one")


def _truth(labels: LabelSet, label: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One-hot truth `(B, K, *S)` and the voxels that count `(B, *S)`."""
    if not labels.is_exclusive:
        return label.astype(float), np.ones_like(label[:, 0], dtype=bool)
    truth = np.stack([label[:, 0] == value for value in labels.values], axis=1).astype(float)
    return truth, label[:, 0] != labels.ignore if labels.ignore is not None else np.ones_like(label[:, 0], dtype=bool)


def _overlap(
    config: DiceConfig | TverskyConfig,
    alpha: float,
    beta: float,
    labels: LabelSet,
    logits: np.ndarray,
    label: np.ndarray,
) -> float:
    truth, counted = _truth(labels, label)
    probability = softmax(logits, axis=1) if labels.is_exclusive else expit(logits)
    groups = [slice(None)] if config.batch else [slice(case, case + 1) for case in range(len(label))]
    first = 1 if labels.is_exclusive and not config.include_background else 0
    scores = []
    for group in groups:
        for k in range(first, truth.shape[1]):
            p, t = probability[group, k][counted[group]], truth[group, k][counted[group]]
            hit, wrong, missed = (p * t).sum(), (p * (1 - t)).sum(), ((1 - p) * t).sum()
            half = config.smooth / 2
            scores.append((hit + half) / (hit + alpha * wrong + beta * missed + half))
    return 1 - float(np.mean(scores))


def _focal(gamma: float, alpha: float | None, labels: LabelSet, logits: np.ndarray, label: np.ndarray) -> float:
    truth, counted = _truth(labels, label)
    if labels.is_exclusive:
        p = (softmax(logits, axis=1) * truth).sum(axis=1)[counted]
        is_label = label[:, 0][counted] != 0
    else:
        p, is_label = np.where(truth > 0, expit(logits), 1 - expit(logits)), truth > 0
    weight = 1.0 if alpha is None else np.where(is_label, alpha, 1 - alpha)
    return float(np.mean(-weight * (1 - p) ** gamma * np.log(p)))


@every_loss
@every_set
@pytest.mark.parametrize("size", [(5, 4), (4, 3, 5)])
def test_value_equals_the_definition_in_float64(config: LossConfig, labels: LabelSet, size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    label = drawn_label(labels, size)
    logits = 3 * torch.randn(2, labels.channels, *size)
    expected = reference(config, labels, logits.double().numpy(), label.numpy())
    assert float(build_loss(config, labels)(logits, label)) == pytest.approx(expected, rel=1e-5)
    assert float(build_loss(config, labels)(logits.double(), label)) == pytest.approx(expected, rel=1e-7)


@every_loss
@every_set
def test_gradient_equals_finite_differences(config: LossConfig, labels: LabelSet) -> None:
    torch.manual_seed(0)
    label = drawn_label(labels, (3, 2))
    logits = torch.randn(2, labels.channels, 3, 2, dtype=torch.float64, requires_grad=True)
    loss = build_loss(config, labels)
    assert torch.autograd.gradcheck(lambda values: loss(values, label), logits, fast_mode=True)


@every_loss
@every_set
def test_perfect_prediction_costs_nothing_and_the_opposite_stays_finite(config: LossConfig, labels: LabelSet) -> None:
    torch.manual_seed(0)
    label = drawn_label(labels, (4, 4, 4))
    costs = []
    for height in (1e4, -1e4):
        logits = sure_logits(labels, label, height).requires_grad_()
        cost = build_loss(config, labels)(logits, label)
        cost.backward()
        assert cost.isfinite()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        costs.append(float(cost.detach()))
    assert costs[0] == pytest.approx(0, abs=1e-6)
    assert costs[1] > 0.1


@every_loss
@every_set
@pytest.mark.parametrize("height", [0.0, 1e4, -1e4])
def test_a_patch_of_background_alone_stays_finite(config: LossConfig, labels: LabelSet, height: float) -> None:
    label = torch.zeros(2, 1 if labels.is_exclusive else 2, 4, 4, 4)
    logits = torch.zeros(2, labels.channels, 4, 4, 4)
    logits[:, 0] = height
    logits.requires_grad_()
    cost = build_loss(config, labels)(logits, label)
    cost.backward()
    assert cost.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


@every_loss
def test_a_patch_of_ignored_voxels_alone_costs_nothing_and_teaches_nothing(config: LossConfig) -> None:
    labels = LABEL_SETS["ignoring"]
    logits = torch.randn(2, labels.channels, 4, 4, requires_grad=True)
    cost = build_loss(config, labels)(logits, torch.full((2, 1, 4, 4), 255))
    cost.backward()
    assert float(cost.detach()) == pytest.approx(0, abs=1e-6)
    assert logits.grad is not None
    assert not logits.grad.any()


@every_loss
def test_ignored_voxels_change_nothing(config: LossConfig) -> None:
    torch.manual_seed(0)
    labels = LABEL_SETS["ignoring"]
    label = drawn_label(labels, (6, 6))
    logits = torch.randn(2, labels.channels, 6, 6)
    disturbed = torch.where(label == 255, torch.randn_like(logits) * 50, logits)
    loss = build_loss(config, labels)
    assert torch.equal(loss(logits, label), loss(disturbed, label))


@every_loss
@every_set
def test_half_precision_logits_are_summed_in_float32(config: LossConfig, labels: LabelSet) -> None:
    torch.manual_seed(0)
    label = drawn_label(labels, (16, 16, 16))
    logits = torch.randn(2, labels.channels, 16, 16, 16).bfloat16()
    loss = build_loss(config, labels)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(logits, label)
    assert found.dtype == torch.float32
    assert torch.equal(found, loss(logits.float(), label))


@every_loss
@every_set
def test_labels_may_come_in_any_dtype(config: LossConfig, labels: LabelSet) -> None:
    torch.manual_seed(0)
    label = drawn_label(labels, (4, 4))
    logits = torch.randn(2, labels.channels, 4, 4)
    loss = build_loss(config, labels)
    costs = {float(loss(logits, label.to(dtype))) for dtype in (torch.uint8, torch.int16, torch.int64, torch.float32)}
    assert len(costs) == 1


@every_loss
def test_config_survives_being_written_down(config: LossConfig) -> None:
    class Experiment(Settings):
        loss: Annotated[LossConfig, LOSSES]

    experiment = Experiment.model_validate({"loss": config})
    written = experiment.model_dump(mode="json")
    assert written["loss"]["name"] == config.name
    assert validate(Experiment, written, "golden") == experiment


@every_loss
@every_set
def test_descending_the_loss_finds_the_label(config: LossConfig, labels: LabelSet) -> None:
    torch.manual_seed(0)
    label = drawn_label(labels, (6, 6))
    logits = torch.zeros(2, labels.channels, 6, 6, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.5)
    loss = build_loss(config, labels)
    for _ in range(25):
        optimiser.zero_grad()
        loss(logits, label).backward()
        optimiser.step()
    found = torch.stack([labels.decide(labels.probabilities(one[None])[0]) for one in logits.detach()])
    found = found[:, None] if labels.is_exclusive else found
    counted = labels.counted(label)
    wrong = found != label
    assert not (wrong if counted is None else wrong & counted).any()
