"""Any loss over a list of logits, so that training need not know whether a network is deeply supervised."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class DeepSupervisionLoss(nn.Module):
    """Sum over stages of w(i) x loss, w(i) proportional to 1/2^i from the finest on and summing to 1 (Isensee et al.).

    Coarser logits meet the label at every n-th voxel, n the ratio of the sizes: the voxels on which strided
    convolutions are centred. A tensor of logits gets the plain loss.
    """

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, logits: torch.Tensor | Sequence[torch.Tensor], label: torch.Tensor) -> torch.Tensor:
        stages = [logits] if isinstance(logits, torch.Tensor) else list(logits)
        total = sum(0.5**i for i in range(len(stages)))
        terms = [0.5**i / total * self.loss(stage, thinned(label, stage)) for i, stage in enumerate(stages)]
        return torch.stack(terms).sum()


def thinned(label: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """The label at every n-th voxel per axis, so that it has the size of the logits."""
    steps = [have // want for have, want in zip(label.shape[2:], logits.shape[2:], strict=True)]
    every_nth = [slice(None), slice(None), *(slice(None, None, step) for step in steps)]
    return label[tuple(every_nth)] if max(steps) > 1 else label
