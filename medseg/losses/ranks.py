"""Sums over all processes that train one network together, so that a batch which is shared out stays one batch."""

from __future__ import annotations

import torch


def over_ranks(total: torch.Tensor) -> torch.Tensor:
    """The sum of every process's `total`, in each of them; `total` itself where there is one process.

    Its gradient is such that DistributedDataParallel, which takes the mean over processes, gives that of the whole
    batch.
    """
    if not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return total
    from torch.distributed.nn.functional import all_reduce

    summed: torch.Tensor = all_reduce(total)
    return summed
