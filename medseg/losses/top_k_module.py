"""The cross-entropy over the hardest voxels of a batch."""

from __future__ import annotations

import torch
from torch import nn

from medseg.labels import LabelSet
from medseg.losses.cross_entropy_module import log_p_of_truth
from medseg.losses.precision import at_least_float32


class TopKLoss(nn.Module):
    """Mean of the largest `share` of -log p(truth) over the voxels that count; see TopKConfig."""

    def __init__(self, labels: LabelSet, share: float) -> None:
        super().__init__()
        self.labels, self.share = labels, share

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        terms = -log_p_of_truth(self.labels, at_least_float32(logits), label)
        counted = self.labels.counted(label)
        if counted is not None:
            terms = terms[counted]  # (N)
        if terms.numel() == 0:
            return logits.sum() * 0.0
        return terms.flatten().topk(max(1, round(self.share * terms.numel())), sorted=False).values.mean()
