"""Gradients and optimizer states too large for one device: each process holds a share, by torch's fully_shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from medseg.devices import World

_WORTH_SHARING = 100_000  # weights of a block that is gathered by itself; smaller ones travel with what they lie in


def share_out(network: nn.Module, world: World, device: torch.device) -> None:
    """Leaves each process its part of every weight and gradient, in place (Zhao et al., PyTorch FSDP, VLDB 2023).

    Blocks of a list, as transformers have them, are gathered one after another when their turn comes in a pass.
    """
    from torch.distributed.fsdp import fully_shard

    mesh = torch.distributed.init_device_mesh(device.type, (world.size,))
    lists = [module for module in network.modules() if isinstance(module, nn.ModuleList | nn.Sequential)]
    blocks = [block for one in reversed(lists) for block in one if not isinstance(block, nn.ModuleList)]
    for block in dict.fromkeys(blocks):
        if sum(weights.numel() for weights in block.parameters()) >= _WORTH_SHARING:
            fully_shard(block, mesh=mesh)
    fully_shard(network, mesh=mesh)


def gathered(state: Any, keeps: bool = True) -> Any:
    """The same nested containers with every shared tensor whole; all processes must ask, those that keep get it."""
    from torch.distributed.tensor import DTensor

    if isinstance(state, DTensor):
        whole = state.full_tensor()
        return whole if keeps else None  # one at a time where nobody keeps them
    if isinstance(state, Mapping):
        return {key: gathered(value, keeps) for key, value in state.items()}
    return [gathered(value, keeps) for value in state] if isinstance(state, list) else state


def shared_like(values: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of whole tensors the part that this process holds of each in `state`."""
    return {name: _part(value, state.get(name)) for name, value in values.items()}


def shared_optimizer(values: Mapping[str, Any], weights: Sequence[torch.Tensor]) -> dict[str, Any]:
    """The same for an optimizer's state of `weights`: what has a weight's shape is shared as that weight is."""
    moments = {
        number: {
            name: _part(value, weights[number]) if getattr(value, "shape", None) == weights[number].shape else value
            for name, value in of_weight.items()
        }
        for number, of_weight in values["state"].items()
    }
    return {**values, "state": moments}


def _part(value: torch.Tensor, held: torch.Tensor | None) -> torch.Tensor:
    from torch.distributed.tensor import DTensor, distribute_tensor

    if not isinstance(held, DTensor):
        return value
    return distribute_tensor(value.to(held.device), held.device_mesh, held.placements, src_data_rank=None)
