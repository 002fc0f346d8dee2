"""What the loop asks of a network beside its layers: how its weights lie in memory, and who computes it together."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from medseg.devices import World
from medseg.errors import ConfigError


def layout(dims: int, channels_last: bool) -> torch.memory_format:
    """How batches of images with so many spatial axes lie in memory."""
    return [torch.channels_last, torch.channels_last_3d][dims - 2] if channels_last else torch.contiguous_format


def lay_out(network: nn.Module, wanted: torch.memory_format) -> None:
    """Has the weights of convolutions lie in memory as the images do."""
    rank = {torch.channels_last: 4, torch.channels_last_3d: 5}.get(wanted)
    for weights in network.parameters():
        if weights.ndim == rank:
            weights.data = weights.data.contiguous(memory_format=wanted)


def together(network: nn.Module, world: World, device: torch.device, compiled: bool) -> nn.Module:
    """The network as a step calls it: compiled if asked for, its gradients the mean over all processes.

    Batch norm then takes its statistics over all of them. Raises ConfigError where it cannot, on a CPU.
    """
    if world.size > 1 and any(isinstance(one, nn.modules.batchnorm._BatchNorm) for one in network.modules()):
        if device.type != "cuda":
            raise ConfigError("batch norm over several processes needs CUDA; set network.normalisation: instance")
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
    forward: nn.Module = torch.compile(network) if compiled else network  # type: ignore[assignment]
    if world.size == 1:
        return forward
    return nn.parallel.DistributedDataParallel(forward, broadcast_buffers=False, gradient_as_bucket_view=True)


def size_bytes(state: object) -> int:
    """Of all tensors in nested containers."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    inside = state.values() if isinstance(state, Mapping) else state if isinstance(state, list | tuple) else ()
    return sum(map(size_bytes, inside))
