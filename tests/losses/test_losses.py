"""Contracts that every loss of the catalogue keeps, for exclusive, ignoring and overlapping labels."""

from __future__ import annotations

from typing import Annotated, Any

import pytest
import torch
from torch import nn

from medseg.config import Settings, validate
from medseg.labels import Label, LabelSet
from medseg.losses import (
    LOSSES,
    BoundaryCEConfig,
    ClDiceConfig,
    CrossEntropyConfig,
    DiceCEConfig,
    DiceConfig,
    FocalConfig,
    FocalTverskyConfig,
    GeneralisedDiceConfig,
    HausdorffConfig,
    JaccardConfig,
    LossConfig,
    LovaszConfig,
    TopKConfig,
    TverskyConfig,
    UnifiedFocalConfig,
    VoxelCounts,
    build_loss,
)
from tests.losses.references import reference

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
    "cross_entropy_by_frequency": CrossEntropyConfig(weights="inverse_frequency"),
    "cross_entropy_by_effective_number": CrossEntropyConfig(weights="effective_number", beta=0.999),
    "top_k_half": TopKConfig(share=0.5),
    "jaccard_pooled": JaccardConfig(batch=True, include_background=True, smooth=1.0),
    "generalised_dice_pooled": GeneralisedDiceConfig(batch=True, include_background=False, smooth=0.1),
    "focal_tversky_steep": FocalTverskyConfig(alpha=0.4, beta=0.9, gamma=3, batch=True, include_background=True),
    "unified_focal_symmetric": UnifiedFocalConfig(weight=0.3, delta=0.7, gamma=0.3, asymmetric=False, batch=True),
    "lovasz_by_patch": LovaszConfig(batch=False),
    "boundary_ce_narrow": BoundaryCEConfig(w0=3, sigma=0.8),
    "hausdorff_linear": HausdorffConfig(alpha=1),
    "cldice_thin": ClDiceConfig(iterations=0, smooth=0.1),
}
CONFIGS = {name: entry.model_validate(NEEDED.get(name, {})) for name, entry in LOSSES} | VARIANTS
every_loss = pytest.mark.parametrize("config", [pytest.param(config, id=name) for name, config in CONFIGS.items()])
every_set = pytest.mark.parametrize("labels", [pytest.param(labels, id=name) for name, labels in LABEL_SETS.items()])
every_size = pytest.mark.parametrize("size", [(5, 4), (4, 3, 5)], ids=["2d", "3d"])

STEPS_TO_LEARN = {"top_k": 200}  # it moves a few voxels at a time; 25 do for the others
# A skeleton is the same for tubes of any width, so that it cannot lead to the very label.
SEES_THE_WHOLE_LABEL = {name: config for name, config in CONFIGS.items() if config.name != "cldice"}


def counts_for(labels: LabelSet) -> VoxelCounts:
    """As if the training cases had a large background, a large label and a small one."""
    inside = (9000, 800, 200)[-labels.channels :]
    return VoxelCounts(inside, tuple(10_000 - voxels for voxels in inside), labels.is_exclusive)


def built(config: LossConfig, labels: LabelSet) -> nn.Module:
    return build_loss(config.weighed(counts_for(labels)), labels)


def drawn_label(labels: LabelSet, size: tuple[int, ...], batch: int = 2) -> torch.Tensor:
    """A label with every value of the set in it, drawn from torch's generator."""
    if not labels.is_exclusive:
        return torch.rand(batch, len(labels.names), *size) < 0.4
    values = torch.tensor([*labels.values, *([] if labels.ignore is None else [labels.ignore])])
    return values[torch.randint(len(values), (batch, 1, *size))].to(torch.uint8)


def assert_finite(loss: nn.Module, logits: torch.Tensor, label: torch.Tensor) -> float:
    """The value, which is finite and has a finite gradient."""
    logits = logits.clone().requires_grad_()
    cost = loss(logits, label)
    cost.backward()
    assert cost.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    return float(cost.detach())


def sure_logits(labels: LabelSet, label: torch.Tensor, height: float) -> torch.Tensor:
    """Logits of +-height that say exactly what the label says."""
    return (labels.one_hot(label) * 2 - 1) * height


def without(labels: LabelSet, label: torch.Tensor, *absent: Label) -> torch.Tensor:
    """The label with some of the set's labels made background."""
    if labels.is_exclusive:
        return label * ~torch.isin(label, torch.tensor([one.value for one in absent], dtype=label.dtype))
    present = [one not in absent for one in TWO]
    return label & torch.tensor(present).view(1, -1, *([1] * (label.ndim - 2)))


@every_loss
@every_set
@every_size
def test_value_equals_the_definition_in_float64(config: LossConfig, labels: LabelSet, size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    label = drawn_label(labels, size)
    logits = 3 * torch.randn(2, labels.channels, *size)
    expected = reference(config.weighed(counts_for(labels)), labels, logits.numpy(), label.numpy())
    assert float(built(config, labels)(logits, label)) == pytest.approx(expected, rel=2e-5)
    assert float(built(config, labels)(logits.double(), label)) == pytest.approx(expected, rel=1e-7)


@every_loss
@every_set
@pytest.mark.parametrize("absent", [TWO[1:], TWO], ids=["one_absent", "all_absent"])
def test_value_equals_the_definition_where_labels_are_absent(
    config: LossConfig, labels: LabelSet, absent: tuple[Label, ...]
) -> None:
    torch.manual_seed(0)
    label = without(labels, drawn_label(labels, (5, 4)), *absent)
    logits = 3 * torch.randn(2, labels.channels, 5, 4, dtype=torch.float64)
    expected = reference(config.weighed(counts_for(labels)), labels, logits.numpy(), label.numpy())
    assert float(built(config, labels)(logits, label)) == pytest.approx(expected, rel=1e-7)


@every_loss
@every_set
@every_size
def test_gradient_equals_finite_differences(config: LossConfig, labels: LabelSet, size: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    label = drawn_label(labels, size)
    logits = torch.randn(2, labels.channels, *size, dtype=torch.float64, requires_grad=True)
    loss = built(config, labels)
    assert torch.autograd.gradcheck(lambda values: loss(values, label), logits, fast_mode=True)


@every_loss
@every_set
def test_perfect_prediction_costs_nothing_and_the_opposite_stays_finite(config: LossConfig, labels: LabelSet) -> None:
    torch.manual_seed(0)
    label = drawn_label(labels, (4, 4, 4))
    loss = built(config, labels)
    costs = [assert_finite(loss, sure_logits(labels, label, height), label) for height in (1e4, -1e4)]
    assert costs[0] == pytest.approx(0, abs=1e-6)
    assert costs[1] > 0.1


@every_loss
@every_set
@pytest.mark.parametrize("height", [0.0, 1e4, -1e4])
def test_a_patch_of_background_alone_stays_finite(config: LossConfig, labels: LabelSet, height: float) -> None:
    label = torch.zeros(2, 1 if labels.is_exclusive else 2, 4, 4, 4)
    logits = torch.zeros(2, labels.channels, 4, 4, 4)
    logits[:, 0] = height
    assert_finite(built(config, labels), logits, label)


@every_loss
@every_set
@pytest.mark.parametrize("spread", [1.0, 1e4])
def test_an_absent_label_stays_finite(config: LossConfig, labels: LabelSet, spread: float) -> None:
    torch.manual_seed(0)
    label = without(labels, drawn_label(labels, (4, 4, 4)), TWO[1])
    logits = spread * torch.randn(2, labels.channels, 4, 4, 4)
    assert_finite(built(config, labels), logits, label)


@every_loss
def test_a_patch_of_ignored_voxels_alone_costs_nothing_and_teaches_nothing(config: LossConfig) -> None:
    labels = LABEL_SETS["ignoring"]
    logits = torch.randn(2, labels.channels, 4, 4, requires_grad=True)
    cost = built(config, labels)(logits, torch.full((2, 1, 4, 4), 255))
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
    loss = built(config, labels)
    assert torch.equal(loss(logits, label), loss(disturbed, label))
    disturbed.requires_grad_()
    loss(disturbed, label).backward()
    assert disturbed.grad is not None
    assert not disturbed.grad[(label == 255).expand_as(disturbed)].any()


@every_loss
@every_set
def test_half_precision_logits_are_summed_in_float32(config: LossConfig, labels: LabelSet) -> None:
    torch.manual_seed(0)
    label = drawn_label(labels, (16, 16, 16))
    logits = torch.randn(2, labels.channels, 16, 16, 16).bfloat16()
    loss = built(config, labels)
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
    loss = built(config, labels)
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


@pytest.mark.parametrize("config", [pytest.param(one, id=name) for name, one in SEES_THE_WHOLE_LABEL.items()])
@every_set
def test_descending_the_loss_finds_the_label(config: LossConfig, labels: LabelSet) -> None:
    torch.manual_seed(0)
    label = drawn_label(labels, (6, 6))
    logits = torch.zeros(2, labels.channels, 6, 6, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.5)
    loss = built(config, labels)
    for _ in range(STEPS_TO_LEARN.get(config.name, 25)):
        optimiser.zero_grad()
        loss(logits, label).backward()
        optimiser.step()
    found = torch.stack([labels.decide(labels.probabilities(one[None])[0]) for one in logits.detach()])
    found = found[:, None] if labels.is_exclusive else found
    counted = labels.counted(label)
    wrong = found != label
    assert not (wrong if counted is None else wrong & counted).any()
