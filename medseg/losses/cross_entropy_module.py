"""Cross-entropy and focal loss in one module, because the first is the second with gamma = 0."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from medseg.labels import LabelSet
from medseg.losses.precision import at_least_float32


class FocalLoss(nn.Module):
    """Mean of -a (1 - p)^gamma log p over the voxels that count; see FocalConfig."""

    def __init__(self, labels: LabelSet, gamma: float, alpha: float | None) -> None:
        super().__init__()
        self.labels, self.gamma, self.alpha = labels, gamma, alpha

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        log_p = self._log_p_of_truth(at_least_float32(logits), label)
        terms = -log_p
        if self.gamma > 0:
            # Kept off 0, where a gamma below 1 has no finite slope.
            missed = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).eps)
            terms = terms * missed**self.gamma
        if self.alpha is not None:
            terms = terms * torch.where(label != 0, self.alpha, 1 - self.alpha)
        counted = self.labels.counted(label)
        if counted is None:
            return terms.mean()
        voxels = counted.sum() * terms.shape[1]
        return terms.masked_fill(~counted, 0.0).sum() / voxels.clamp(min=1)

    def _log_p_of_truth(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """log p of the true output `(B, 1, *S)`, or of each overlapping label's truth `(B, S, *S)`."""
        if not self.labels.is_exclusive:
            return functional.logsigmoid(torch.where(label != 0, logits, -logits))
        # Not torch's cross_entropy: on CUDA its sum has no fixed order. An ignored voxel is 0 in every output.
        return (self.labels.one_hot(label) * logits.log_softmax(dim=1)).sum(dim=1, keepdim=True)
