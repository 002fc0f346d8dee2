"""Batch norm that survives a single value per channel, so that a batch of one trains through a global pool."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import nn

N = TypeVar("N", bound=nn.Module)


class LenientBatchNorm2d(nn.BatchNorm2d):
    """A BatchNorm2d that takes its running statistics, and leaves them, where one value has no variance."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.training and input.numel() == input.shape[1]:
            return nn.functional.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        return super().forward(input)


def forgive_single_values(network: N) -> N:
    """The same network, its batch norms turned into that above; parameters, buffers and their names stay.

    All are turned, since the size of the patch decides which of them see a single value; elsewhere they do not differ.
    """
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = LenientBatchNorm2d
    return network
