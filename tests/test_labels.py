"""One set of labels answers for losses, metrics and writers alike."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from medseg.errors import LabelError
from medseg.labels import FOREGROUND, Label, LabelSet

ONE, TWO = Label(name="liver", value=2), Label(name="tumour", value=5, colour=(1, 2, 3))
SET = LabelSet(labels=(ONE, TWO), regions={"organ": ("liver", "tumour")}, ignore=9)
BOTH = LabelSet(kind="overlapping", labels=(ONE, TWO), regions={"organ": ("liver", "tumour")})


def test_outputs_are_background_and_labels_in_order() -> None:
    assert (SET.channels, SET.values, SET.names) == (3, [0, 2, 5], ["liver", "tumour"])
    assert (BOTH.channels, BOTH.foreground) == (2, slice(None))
    assert SET.foreground == slice(1, None)


def test_one_hot_follows_the_order_and_is_0_where_ignored() -> None:
    label = torch.tensor([0, 2, 5, 9]).view(1, 1, 4)
    assert SET.one_hot(label)[0].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    counted = SET.counted(label)
    assert counted is not None
    assert counted.tolist() == [[[True, True, True, False]]]
    stacked = torch.tensor([[[True, False], [True, True]]])
    assert BOTH.one_hot(stacked).tolist() == [[[1, 0], [1, 1]]]
    assert BOTH.counted(stacked) is None


def test_probabilities_are_a_softmax_or_a_sigmoid_each() -> None:
    logits = torch.tensor([[[0.0], [np.log(2.0)], [np.log(5.0)]]])
    assert SET.probabilities(logits)[0, :, 0].tolist() == pytest.approx([1 / 8, 2 / 8, 5 / 8])
    assert BOTH.probabilities(logits[:, :2])[0, :, 0].tolist() == pytest.approx([1 / 2, 2 / 3])


def test_decisions_are_values_or_booleans() -> None:
    probabilities = torch.tensor([[0.8, 0.1, 0.2], [0.1, 0.8, 0.2], [0.1, 0.1, 0.6]])
    decided = SET.decide(probabilities)
    assert decided.tolist() == [0, 2, 5]
    assert decided.dtype == torch.int32
    assert BOTH.decide(probabilities[:2]).tolist() == [[True, False, False], [False, True, False]]


def test_masks_know_labels_and_regions() -> None:
    label = np.array([0, 2, 5, 9])
    assert SET.mask(label, "tumour").tolist() == [False, False, True, False]
    assert SET.mask(label, "organ").tolist() == [False, True, True, False]
    stacked = np.array([[True, False, True], [False, False, True]])
    assert BOTH.mask(stacked, "liver").tolist() == [True, False, True]
    assert BOTH.mask(stacked, "organ").tolist() == [True, False, True]


def test_unknown_values_are_named_with_the_file() -> None:
    SET.check(np.array([0, 2, 5, 9]), "a.nii")
    with pytest.raises(LabelError, match=r"a\.nii: label values 1, 7 are not in the label set \[0, 2, 5, 9\]"):
        SET.check(np.array([0, 1, 2, 7]), "a.nii")
    with pytest.raises(LabelError, match="label values 2"):
        BOTH.check(np.array([0, 2]), "a.nii")


def test_colours_are_the_labels_own_or_told_apart() -> None:
    assert SET.colour("tumour") == (1, 2, 3)
    many = LabelSet(labels=tuple(Label(name=f"l{value}", value=value) for value in range(1, 8)))
    assert len({many.colour(name) for name in many.names}) == 7


def test_the_only_label_may_be_called_foreground_others_may_not() -> None:
    alone = LabelSet(labels=(Label(name=FOREGROUND, value=1),))
    assert alone.names == [FOREGROUND]
    with pytest.raises(ValidationError, match="label among others cannot be called 'foreground'"):
        LabelSet(labels=(Label(name=FOREGROUND, value=1), ONE))
    with pytest.raises(ValidationError, match="a region cannot be called 'foreground'"):
        LabelSet(labels=(ONE, TWO), regions={FOREGROUND: ("liver", "tumour")})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"labels": (ONE, Label(name="liver", value=3))}, "label name liver is given twice"),
        ({"labels": (ONE, Label(name="cyst", value=2))}, "label value 2 is given twice"),
        ({"labels": (ONE,), "ignore": 2}, "label value 2 is given twice"),
        ({"labels": (Label(name="background", value=1),)}, "label name background is given twice"),
        ({"labels": (ONE,), "regions": {"liver": ("liver",)}}, "label name liver is given twice"),
        ({"labels": (ONE,), "regions": {"organ": ("spleen",)}}, "spleen is no label; known: liver"),
        ({"labels": (Label(name="left", value=1, pair="right"),)}, "right is no label"),
        ({"kind": "overlapping", "labels": (ONE,), "ignore": 9}, "ignore 9 needs exclusive labels"),
        ({"labels": ()}, "at least 1"),
    ],
)
def test_a_set_that_contradicts_itself_is_refused(content: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        LabelSet.model_validate(content)


def test_what_nobody_looked_for_is_one_with_the_background() -> None:
    plain = LabelSet(labels=(ONE, TWO))
    logits = torch.tensor([[0.3, -1.0, 2.0], [0.5, 0.1, -0.7]], dtype=torch.float64).view(2, 3, 1).requires_grad_()
    annotated = torch.tensor([plain.annotated(["liver"]), plain.annotated(None)])
    assert annotated.tolist() == [[True, True, False], [True, True, True]]
    before, after = logits.softmax(dim=1), plain.marginal(logits, annotated).softmax(dim=1)
    assert torch.allclose(after[0, 0], before[0, 0] + before[0, 2])
    assert torch.allclose(after[0, 1], before[0, 1])
    assert after[0, 2] == 0
    assert torch.equal(plain.marginal(logits, annotated)[1], logits[1])
    (found,) = torch.autograd.grad(-after[0, 0].log().sum(), logits)  # a voxel that is marked as background
    either = torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64).view(3, 1)  # and may be one or the other
    assert torch.allclose(found[0], before[0] - either * before[0] / (before[0, 0] + before[0, 2]))


def test_an_overlapping_label_that_nobody_looked_for_learns_nothing() -> None:
    logits = torch.tensor([[[0.3], [2.0]]], requires_grad=True)
    shown = BOTH.marginal(logits, torch.tensor([BOTH.annotated(["liver"])]))
    assert shown.sigmoid()[0, 1] == 0
    (found,) = torch.autograd.grad(shown.sum(), logits)
    assert found[0, :, 0].tolist() == [1, 0]
