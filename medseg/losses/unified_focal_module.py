"""The unified focal loss: a focal and a focal Tversky part with the same settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from medseg.labels import LabelSet
from medseg.losses.cross_entropy_module import counted_mean, log_p_of_truth, share_missed
from medseg.losses.overlap_module import masked_outputs, steep_power, sums_of, tversky_index
from medseg.losses.precision import at_least_float32

if TYPE_CHECKING:
    from medseg.losses.unified_focal import UnifiedFocalConfig


class UnifiedFocalLoss(nn.Module):
    """weight x focal + (1 - weight) x focal Tversky; see UnifiedFocalConfig."""

    def __init__(self, labels: LabelSet, config: UnifiedFocalConfig) -> None:
        super().__init__()
        self.labels, self.config = labels, config

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        weight = self.config.weight
        return weight * self._focal(logits, label) + (1 - weight) * self._tversky(logits, label)

    def _focal(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        delta, is_label = self.config.delta, label != 0
        log_p = log_p_of_truth(self.labels, at_least_float32(logits), label)
        eased = share_missed(log_p) ** self.config.gamma
        if self.config.asymmetric:
            eased = torch.where(is_label, 1.0, eased)
        terms = torch.where(is_label, delta, 1 - delta) * eased * -log_p
        return counted_mean(terms, self.labels.counted(label))

    def _tversky(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        p, truth = masked_outputs(self.labels, logits, label, include_background=True)
        if self.labels.is_exclusive:
            rest, rest_truth, p, truth = p[:, :1], truth[:, :1], p[:, 1:], truth[:, 1:]
        else:
            rest, rest_truth = 1 - p, 1 - truth
        exponent = 1 - self.config.gamma
        of_labels = steep_power(self._missed(p, truth), exponent)
        of_background = steep_power(self._missed(rest, rest_truth), 1.0 if self.config.asymmetric else exponent)
        return torch.cat((of_background, of_labels), dim=-1).mean()

    def _missed(self, probabilities: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """1 - Tversky index of each output."""
        sums = sums_of(probabilities, truth, self.config.batch)
        return 1 - tversky_index(sums, 1 - self.config.delta, self.config.delta, self.config.smooth)
