"""A moving average of a network's weights: it wanders less than the weights of the last step."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class MovingAverage:
    """Exponential moving average (Polyak and Juditsky, 1992; Tarvainen and Valpola, NeurIPS 2017) of a network.

    After step n (from 1) the average keeps min(`decay`, (1 + n) / (10 + n)) of itself, so that the first weights, which
    are chance, are soon forgotten. Integer buffers, as batch norm counts with, are copied.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = copy.deepcopy(network).requires_grad_(False)

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Takes in the weights after step `step`, counted from 1."""
        kept = min(self.decay, (1 + step) / (10 + step))
        mine, theirs = self.network.state_dict(), network.state_dict()
        names = [name for name, value in mine.items() if value.is_floating_point()]
        torch._foreach_lerp_([mine[name] for name in names], [theirs[name] for name in names], 1 - kept)
        for name in mine.keys() - set(names):
            mine[name].copy_(theirs[name])

    def state_dict(self) -> dict[str, Any]:
        """The averaged weights, by name."""
        return self.network.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up weights that `state_dict` gave."""
        self.network.load_state_dict(state)
