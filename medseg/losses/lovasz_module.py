"""Lovász-softmax and Lovász-hinge: errors weighed by what each adds to the Jaccard loss, the largest error first."""

from __future__ import annotations

import torch
from torch import nn

from medseg.labels import LabelSet
from medseg.losses.precision import at_least_float32


class LovaszLoss(nn.Module):
    """Lovász extension of the Jaccard loss, of softmax errors or of hinge errors; see LovaszConfig."""

    def __init__(self, labels: LabelSet, batch: bool) -> None:
        super().__init__()
        self.labels, self.batch = labels, batch

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        truth, counted = self.labels.one_hot(label), self.labels.counted(label)
        errors = self._errors(at_least_float32(logits), truth)
        groups = [slice(None)] if self.batch else [slice(patch, patch + 1) for patch in range(len(label))]
        costs = []
        for group in groups:
            known = None if counted is None else counted[group].flatten()
            costs.append(self._cost(_by_output(errors[group], known), _by_output(truth[group], known)))
        return torch.stack(costs).mean()

    def _errors(self, logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """How wrong each output is in each voxel, from 0 on, `(B, K, *S)`."""
        if self.labels.is_exclusive:
            return (truth - self.labels.probabilities(logits)).abs()
        return (1 - logits * (2 * truth - 1)).relu()

    def _cost(self, errors: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        """The mean over labels of the Lovász extension, of errors and truth `(K, N)`."""
        if errors.shape[1] == 0:
            return errors.sum()
        costs = (errors * jaccard_slopes(errors.detach(), truth)).sum(dim=1)
        return costs[truth.any(dim=1)].mean() if self.labels.is_exclusive else costs.mean()


def jaccard_slopes(errors: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """What each voxel's mistake adds to the Jaccard loss once all larger errors are mistakes, `(K, N)`.

    A missed voxel takes one from the intersection: 1 / U. A false alarm adds one to the union U: I / (U (U - 1)). The
    counts are integers, so that the slopes keep their precision among millions of voxels.
    """
    order = errors.argsort(dim=1, descending=True, stable=True)
    is_true = truth.gather(1, order).long()
    missed, voxels = is_true.cumsum(dim=1), is_true.sum(dim=1, keepdim=True)
    intersection, union = voxels - missed, voxels + (1 - is_true).cumsum(dim=1)
    added = intersection.double() / (union * (union - 1)).clamp(min=1)
    added = torch.where(union == 1, 1.0, added)  # the first false alarm where nothing is true
    slopes = torch.where(is_true == 1, 1.0 / union.clamp(min=1), added).to(errors.dtype)
    return torch.zeros_like(errors).scatter(1, order, slopes)


def _by_output(values: torch.Tensor, known: torch.Tensor | None) -> torch.Tensor:
    """`(B, K, *S)` -> `(K, N)`, N the known voxels of all patches."""
    flat = values.transpose(0, 1).flatten(start_dim=1)
    return flat if known is None else flat[:, known]
