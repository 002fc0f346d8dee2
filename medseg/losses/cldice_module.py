"""The centreline Dice loss and the soft skeleton that it is made of."""

from __future__ import annotations

import torch
from torch import nn

from medseg.labels import LabelSet
from medseg.losses.overlap_module import masked_outputs


class ClDiceLoss(nn.Module):
    """1 - mean harmonic mean of skeleton precision and sensitivity; see ClDiceConfig."""

    def __init__(self, labels: LabelSet, iterations: int, smooth: float) -> None:
        super().__init__()
        self.labels, self.iterations, self.smooth = labels, iterations, smooth

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        probabilities, truth = masked_outputs(self.labels, logits, label, include_background=False)
        precision = self._share_within(soft_skeleton(probabilities, self.iterations), truth)
        sensitivity = self._share_within(soft_skeleton(truth, self.iterations), probabilities)
        return 1 - (2 * precision * sensitivity / (precision + sensitivity)).mean()

    def _share_within(self, skeleton: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
        """The share of each skeleton that lies in the region, `(B, K)`."""
        axes = tuple(range(2, skeleton.ndim))
        return ((skeleton * region).sum(axes) + self.smooth) / (skeleton.sum(axes) + self.smooth)


def soft_skeleton(mask: torch.Tensor, iterations: int) -> torch.Tensor:
    """What opening takes away from a soft mask `(B, K, *S)` after 0 to `iterations` erosions, united."""
    eroded = _eroded(mask)
    skeleton = (mask - _dilated(eroded)).relu()
    for _ in range(iterations):
        mask, eroded = eroded, _eroded(eroded)
        thin = (mask - _dilated(eroded)).relu()
        skeleton = skeleton + (thin - skeleton * thin).relu()
    return skeleton


def _eroded(mask: torch.Tensor) -> torch.Tensor:
    """The least of a voxel and its face neighbours; outside of the patch there are none."""
    thinned = mask
    for axis in range(2, mask.ndim):
        for neighbour in _neighbours(mask, axis):
            thinned = torch.minimum(thinned, neighbour)
    return thinned


def _dilated(mask: torch.Tensor) -> torch.Tensor:
    """The greatest of a voxel and all its neighbours, corners included."""
    for axis in range(2, mask.ndim):
        before, after = _neighbours(mask, axis)
        mask = torch.maximum(torch.maximum(mask, before), after)
    return mask


def _neighbours(mask: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each voxel's neighbour before and after it along one axis; at the patch's edge the voxel itself.

    Shifts in place of max-pooling, whose slopes add up in no fixed order on CUDA.
    """
    last = mask.shape[axis] - 1
    before = torch.cat((mask.narrow(axis, 0, 1), mask.narrow(axis, 0, last)), dim=axis)
    after = torch.cat((mask.narrow(axis, 1, last), mask.narrow(axis, last, 1)), dim=axis)
    return before, after
