"""A flip from left to right gives the picture of a mirrored patient: what was the left kidney is now the right one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from medseg.data.augmentation import Flip
from medseg.data.laterality import Laterality, laterality
from medseg.data.loaders import Draw, Patches, training_case
from medseg.data.patches import PatchSettings
from medseg.data.preprocessing import Prepared, Preprocessing
from medseg.geometry import Geometry
from medseg.inference.predictor import Predictor
from medseg.inference.settings import InferenceSettings
from medseg.labels import Label, LabelSet
from medseg.volume import Volume

KIDNEYS = LabelSet(
    labels=(
        Label(name="left", value=1, pair="right"),
        Label(name="spine", value=4),
        Label(name="right", value=9, pair="left"),
    )
)
BOTH_KINDS = [KIDNEYS, KIDNEYS.model_copy(update={"kind": "overlapping"})]
PATCH = PatchSettings(size=(6, 5, 4), foreground_share=0.0)


def body(labels: LabelSet) -> np.ndarray:
    """Left at low x, right at high x, the spine between them."""
    values = np.zeros((1, 6, 5, 4), np.float32)
    values[0, 0], values[0, 2], values[0, 5, 1:] = 1, 4, 9
    return values if labels.is_exclusive else np.concatenate([values == value for value in labels.values[1:]])


@pytest.mark.parametrize("labels", BOTH_KINDS, ids=["exclusive", "overlapping"])
def test_a_flip_from_left_to_right_exchanges_the_pair(labels: LabelSet) -> None:
    grid = Geometry.from_spacing((6, 5, 4), (1.0, 1.0, 1.0))
    image = np.arange(120, dtype=np.float32).reshape(1, 6, 5, 4)
    case = training_case("body", Prepared(image, body(labels), grid, grid), labels)
    for axis, exchanged in ((0, True), (1, False)):
        patches = Patches([case], PATCH, [Flip(probability=1.0, axes=(axis,))], 0, Laterality(0, labels))
        patch = patches[Draw(0, 0, 0)]
        assert np.array_equal(patch["image"], np.flip(image, axis + 1))
        expected = np.flip(body(labels), axis + 1)
        if exchanged and labels.is_exclusive:
            expected = np.select([expected == 1, expected == 9], [9, 1], expected)
        elif exchanged:
            expected = expected[[2, 1, 0]]
        assert np.array_equal(patch["label"], expected)


@pytest.mark.parametrize(
    ("orientation", "size", "slice_axis", "axis"),
    [
        ("RAS", (6, 5, 4), None, 0),
        ("AIL", (6, 5, 4), None, 2),
        (None, (6, 5, 4), None, None),
        ("RAS", (5, 4), 0, None),  # sagittal slices: left and right are slices apart
        ("RAS", (6, 4), 1, 0),
        ("SPL", (6, 4), 1, 1),
        ("RAS", (6, 5), None, None),  # a picture
    ],
)
def test_the_axis_follows_from_orientation_and_slices(
    orientation: str | None, size: tuple[int, ...], slice_axis: int | None, axis: int | None
) -> None:
    found = laterality(Preprocessing(orientation=orientation), PatchSettings(size=size, slice_axis=slice_axis), KIDNEYS)
    assert (found and found.axis) == axis
    assert laterality(Preprocessing(), PATCH, KIDNEYS.without_pairs()) is None


class BySide(nn.Module):
    """What a perfect network says of a body whose image tells the labels apart by side only."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        inside, middle = image > 0, torch.arange(image.shape[2]).view(1, 1, -1, 1, 1) < image.shape[2] / 2
        found = [image <= 0, inside & middle, torch.zeros_like(inside), inside & ~middle]
        return torch.cat(found, dim=1).float()


def test_test_time_flips_agree_on_the_sides() -> None:
    image = np.zeros((1, 6, 5, 4), np.float32)
    image[0, [0, 5]] = 1
    volume = Volume(image, Geometry.from_spacing((6, 5, 4), (1.0, 1.0, 1.0)))
    plain = Preprocessing(intensity=())
    for flips in ((), (0,), (0, 1, 2)):
        settings = InferenceSettings(flips=flips, precision="fp32")
        found = Predictor(BySide(), KIDNEYS, plain, PATCH, settings).predict(volume).array
        assert found[0].tolist() == [[1] * 4] * 5
        assert found[5].tolist() == [[9] * 4] * 5
    blind = Predictor(BySide(), KIDNEYS.without_pairs(), plain, PATCH, InferenceSettings(flips=(0,), precision="fp32"))
    assert np.ptp(blind.logits(image)[1, [0, 5]]) == 0  # without pairs, flips would wipe out what side it is


def test_pairs_go_both_ways() -> None:
    with pytest.raises(ValueError, match="pairs go both ways, but 'a' names 'b'"):
        LabelSet(labels=(Label(name="a", value=1, pair="b"), Label(name="b", value=2)))
