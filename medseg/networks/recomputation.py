"""Gradient checkpointing for networks of other libraries that offer none, so that a large patch fits a small memory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint


class _Recomputed:
    """Laid over a module's class: in train mode, what its forward pass holds is computed again in the backward pass."""

    training: bool

    def forward(self, *inputs: Any) -> Any:
        forward = super().forward  # type: ignore[misc]
        return checkpoint(forward, *inputs, use_reentrant=False) if self.training else forward(*inputs)


def recompute_in_backward(modules: Iterable[nn.Module]) -> None:
    """Turns modules, none of which holds another, into such as are recomputed; parameters and their names stay.

    Gradients stay the same, memory shrinks, a step takes about a third longer (Chen et al., arXiv 1604.06174). Batch
    normalisation inside would update its statistics twice a step.
    """
    for module in modules:
        kind = type(module)
        module.__class__ = type(f"Recomputed{kind.__name__}", (_Recomputed, kind), {})
