"""The precision of losses, in one place: sums over a patch lose their small terms in half precision."""

from __future__ import annotations

import torch


def at_least_float32(logits: torch.Tensor) -> torch.Tensor:
    """Half precision as float32, anything finer as it is."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
