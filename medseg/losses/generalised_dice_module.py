"""The generalised Dice loss: one ratio over all labels, each weighed by its size."""

from __future__ import annotations

import torch
from torch import nn

from medseg.labels import LabelSet
from medseg.losses.overlap_module import masked_outputs, sums_of


class GeneralisedDiceLoss(nn.Module):
    """1 - weighed overlap over weighed sizes; see GeneralisedDiceConfig."""

    def __init__(self, labels: LabelSet, batch: bool, include_background: bool, smooth: float) -> None:
        super().__init__()
        self.labels, self.batch, self.include_background, self.smooth = labels, batch, include_background, smooth

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        sums = sums_of(*masked_outputs(self.labels, logits, label, self.include_background), self.batch)
        weights = _relative_weights(sums.true)
        hits = 2 * (weights * sums.hit).sum(dim=-1)
        sizes = (weights * (sums.predicted + sums.true)).sum(dim=-1)
        return 1 - ((hits + self.smooth) / (sizes + self.smooth)).mean()


def _relative_weights(voxels: torch.Tensor) -> torch.Tensor:
    """(fewest / voxels)^2 along the last axis, 1 for absent labels, fewest being the size of the rarest present one."""
    present = voxels > 0
    fewest = voxels.masked_fill(~present, torch.inf).amin(dim=-1, keepdim=True)
    return torch.where(present, fewest / voxels.clamp(min=1), 1.0) ** 2
