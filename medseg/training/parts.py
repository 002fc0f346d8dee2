"""What the loop leaves to others: checks before it, the layout in memory, processes together, advice on errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from medseg.data.loaders import Patches
from medseg.devices import World
from medseg.errors import ConfigError, TrainingError
from medseg.labels import LabelSet
from medseg.training.settings import TrainingSettings
from medseg.training.sharding import share_out


def check(settings: TrainingSettings, world: World, patches: Patches) -> None:
    """Raises ConfigError for settings that the processes or the cases do not allow."""
    size = settings.batch_size
    if size % world.size:
        raise ConfigError(f"training.batch_size {size} is no multiple of {world.size} processes; change it")
    if settings.mix is not None and patches.annotated is not None:
        raise ConfigError(
            f"training.mix {settings.mix.name} needs cases in which every label was looked for, but `annotated` in "
            "cases.csv says otherwise; set training.mix to null"
        )


def check_together(step: int, world: World, device: torch.device, folder: Path) -> None:
    """Raises TrainingError in all processes unless they go on from the same step; a shared disk may show it late."""
    found = world.total(torch.eye(world.size, dtype=torch.int64, device=device)[world.rank] * step).tolist()
    if len(set(found)) > 1:
        raise TrainingError(
            f"{folder}: its processes find checkpoints of steps {found}; resume once all see the newest"
        )


def answered(
    logits: torch.Tensor | Sequence[torch.Tensor], annotated: torch.Tensor | None, labels: LabelSet
) -> torch.Tensor | list[torch.Tensor]:
    """The logits, of each depth where there are several, as far as what was looked for can judge them."""
    if annotated is None:
        return logits  # type: ignore[return-value]
    if isinstance(logits, torch.Tensor):
        return labels.marginal(logits, annotated)
    return [labels.marginal(stage, annotated) for stage in logits]


def layout(dims: int, channels_last: bool) -> torch.memory_format:
    """How batches of images with so many spatial axes lie in memory."""
    return [torch.channels_last, torch.channels_last_3d][dims - 2] if channels_last else torch.contiguous_format


def lay_out(network: nn.Module, wanted: torch.memory_format) -> None:
    """Has the weights of convolutions lie in memory as the images do."""
    rank = {torch.channels_last: 4, torch.channels_last_3d: 5}.get(wanted)
    for weights in network.parameters():
        if weights.ndim == rank:
            weights.data = weights.data.contiguous(memory_format=wanted)


def together(
    network: nn.Module, world: World, device: torch.device, *, compiled: bool, sharded: bool = False
) -> nn.Module:
    """The network as a step calls it: compiled if asked for, its gradients the mean over all processes.

    With `sharded` each process holds a share of the weights, which replaces them in the network. Batch norm takes its
    statistics over all processes. Raises ConfigError where it cannot, on a CPU.
    """
    if world.size > 1 and any(isinstance(one, nn.modules.batchnorm._BatchNorm) for one in network.modules()):
        if device.type != "cuda":
            raise ConfigError("batch norm over several processes needs CUDA; set network.normalisation: instance")
        nn.SyncBatchNorm.convert_sync_batchnorm(network)
    if sharded:
        share_out(network, world, device)
    forward: nn.Module = torch.compile(network) if compiled else network  # type: ignore[assignment]
    if world.size == 1 or sharded:
        return forward
    return nn.parallel.DistributedDataParallel(forward, broadcast_buffers=False, gradient_as_bucket_view=True)


@contextmanager
def advised(step: int, device: torch.device) -> Iterator[None]:
    """Raises TrainingError, with what a person can do, for an error of torch that is known; the step counts from 0."""
    try:
        yield
    except RuntimeError as error:
        if advice := _advice_on(error, device):
            raise TrainingError(f"step {step + 1}: {advice}") from error
        raise


def _advice_on(error: RuntimeError, device: torch.device) -> str | None:
    """None where nothing is known."""
    if isinstance(error, torch.OutOfMemoryError):
        return f"{device} is out of memory; lower training.batch_size or patch.size, or raise training.accumulate"
    if "does not have a deterministic implementation" in str(error):
        operation = str(error).split(" does not have")[0]
        return f"{operation} cannot repeat its bits on {device}; choose another part, or training.determinism: fast"
    return None


def size_bytes(state: object) -> int:
    """Of all tensors in nested containers."""
    if isinstance(state, torch.Tensor):
        return state.nbytes
    inside = state.values() if isinstance(state, Mapping) else state if isinstance(state, list | tuple) else ()
    return sum(map(size_bytes, inside))
