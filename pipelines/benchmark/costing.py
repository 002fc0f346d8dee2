"""What an experiment's network costs on a batch of its own size; run in a fresh process, so that memory can be told."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from medseg.experiment import read_experiment

if TYPE_CHECKING:
    import torch

    from medseg.labels import LabelSet

Phase = Literal["training", "inference"]
PHASES: tuple[Phase, ...] = get_args(Phase)  # each measured in a process of its own


def cost(experiment: Path, phase: Phase, device: str, repetitions: int) -> dict[str, Any]:
    """Seconds a patch and peak memory of one phase; for inference also parameters and GFLOPs of one patch.

    The batch, loss, optimizer, precision and threads are the experiment's, and the images are noise.
    """
    import torch

    from medseg.data.manifest import read_dataset
    from medseg.devices import choose_device, choose_precision, usable_cores
    from medseg.losses import build_loss
    from medseg.losses.voxel_counts import count_voxels
    from medseg.networks import cost as costs
    from pipelines.locations import find_manifest

    config, target = read_experiment(experiment), choose_device(device)
    dataset, plan = read_dataset(find_manifest(config.data.manifest)), config.training
    torch.manual_seed(config.seed)
    torch.set_num_threads(plan.threads or usable_cores())
    network = config.build_network(len(dataset.channels), dataset.labels).to(target)
    meter = costs.Meter(network, target)
    batch = plan.batch_size if phase == "training" else config.inference.window_batch
    images = torch.randn(batch, len(dataset.channels), *config.patch.size, device=target)
    if phase == "training":
        labels = _labels(dataset.labels, images)
        pieces = list(zip(images.chunk(plan.accumulate), labels.chunk(plan.accumulate), strict=True))
        counts = count_voxels([one.cpu().numpy() for one in labels], dataset.labels)
        loss = build_loss(config.loss.weighed(counts), dataset.labels).to(target)
        dtype, optimizer = choose_precision(plan.precision, target), plan.optimizer.build(network.parameters())
        spent = costs.measure(
            costs.training_step(network, loss, optimizer, pieces, dtype), batch, meter, repetitions=repetitions
        )
        return {**asdict(spent), "batch": batch, "precision": str(dtype).removeprefix("torch.")}
    dtype = choose_precision(config.inference.precision, target)
    spent = costs.measure(costs.inference(network, images, dtype), batch, meter, repetitions=repetitions)
    facts = {"parameters": costs.count_parameters(network), "gflops": costs.forward_flops(network, images[:1]) / 1e9}
    return {**facts, **asdict(spent), "batch": batch, "precision": str(dtype).removeprefix("torch.")}


def _labels(labels: LabelSet, images_bcs: torch.Tensor) -> torch.Tensor:
    """A label for a batch: the values as slabs of equal thickness along the first axis, so that each is present."""
    import torch

    batch, _, *size = images_bcs.shape
    thickness = [1] * (len(size) - 1)
    which = torch.arange(size[0]) * labels.channels // size[0]
    if labels.is_exclusive:
        slabs = torch.tensor(labels.values)[which].view(1, 1, -1, *thickness)
        return slabs.expand(batch, 1, *size).to(images_bcs)
    each = (which[None] == torch.arange(labels.channels)[:, None]).view(1, labels.channels, -1, *thickness)
    return each.expand(batch, labels.channels, *size).to(images_bcs)
