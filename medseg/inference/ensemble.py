"""Several networks as one, so that whoever slides a network over a volume need not know of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from medseg.inference.settings import Average
from medseg.labels import LabelSet

_LEAST = 1e-7  # of a probability, so that its logarithm is finite


class Ensemble(nn.Module):
    """Images `(B, C, *S)` -> logits `(B, K, *S)` float32: a mean over the members.

    Of their logits, or of their probabilities, of which it gives the logits.
    """

    def __init__(self, members: Sequence[nn.Module], labels: LabelSet, average: Average) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.labels, self.average = labels, average

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        total = torch.zeros((), device=images.device)
        for member in self.members:
            logits = member(images).float()
            total = total + (logits if self.average == "logits" else self.labels.probabilities(logits))
        mean = total / len(self.members)
        if self.average == "logits":
            return mean
        inside = mean.clamp(_LEAST, 1 - _LEAST)
        return inside.log() if self.labels.is_exclusive else inside.logit()
