"""What takes part in a comparison: the shipped configs' networks on one data set, or the losses of a list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from medseg.config import Settings, apply_assignments, read_yaml, suggestion, validate
from medseg.data.patches import PatchSettings
from medseg.errors import ConfigError
from medseg.experiment import ExperimentConfig
from medseg.losses import LOSSES, LossConfig
from medseg.networks import NETWORKS, NetworkConfig
from pipelines.locations import find_config, shipped_configs

OWN, BORROWED = (
    "hippocampus_",
    "lungs_",
)  # configs on the data of the comparison; 2D ones whose networks are tried on it
BASE_2D = "hippocampus_unet2d"
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=60)]  # part of file names


@dataclass(frozen=True)
class Entry:
    """One that takes part; without an experiment where it cannot, and `skipped` says why."""

    label: str
    dims: int
    experiment: ExperimentConfig | None
    skipped: str = ""


class LossChoices(Settings):
    """Which losses are compared, each as it is tried, on which experiment."""

    schema_version: Literal[1] = 1
    base: str  # name or path of an experiment, whose loss is replaced
    losses: Mapping[Label, Annotated[LossConfig, LOSSES]] = Field(min_length=1)


def network_entries(names: Sequence[str], dims: Sequence[int], assignments: Sequence[str]) -> list[Entry]:
    """The networks of the shipped configs, those in 3D as they are, those in 2D slice by slice; names choose some.

    A name is that of a config without its data and axes (`unet` for hippocampus_unet3d), or of a catalogued network.
    In 2D each network, with its optimizer, takes the place of that of `BASE_2D`; where configs of both kinds have one
    of the same name, the one made for these data counts. The patch is rounded up to what a network can take.
    Raises ConfigError for a name that no entry has, and where no entry is left.
    """
    found = list(_once(_networks(assignments)))
    labels = {entry.label for entry, _ in found}
    known = sorted(labels | {network for _, network in found})
    for name in names:
        if name not in known:
            raise ConfigError(f"benchmark networks {name!r}: no shipped config has it{suggestion(name, known)}")
    meant = {name for name in names if name not in labels}  # networks, of which there may be several configs
    every = [(entry, network) for entry, network in found if entry.dims in dims]
    return _some([entry for entry, network in every if not names or entry.label in names or network in meant])


def loss_entries(choices: LossChoices, names: Sequence[str], assignments: Sequence[str]) -> list[Entry]:
    """The losses of a list, each in the place of the base's own. Raises ConfigError as `network_entries` does."""
    for name in names:
        if name not in choices.losses:
            raise ConfigError(f"benchmark losses {name!r}: is not in the list{suggestion(name, choices.losses)}")
    base = read_yaml(find_config(choices.base))
    blocks = {label: loss.model_dump(mode="json") for label, loss in choices.losses.items()}
    chosen = {label: block for label, block in blocks.items() if label in names or not names}
    return _some([_entry(label, None, {**base, "loss": block}, assignments) for label, block in chosen.items()])


def read_losses(path: Path) -> LossChoices:
    """A list of losses. Raises ConfigError, naming key and value."""
    return validate(LossChoices, read_yaml(path), str(path))


def fitted(network: NetworkConfig, size: Sequence[int]) -> list[int]:
    """The patch size, each axis rounded up to what the network can take."""
    divisor = network.divisor()
    if len(divisor) != len(size):
        return list(size)  # refused where the experiment is checked
    up = [-(-have // step) * step for have, step in zip(size, divisor, strict=True)]
    return up if tuple(up) != tuple(divisor) else [2 * up[0], *up[1:]]  # more than one voxel at the coarsest stage


def _networks(assignments: Sequence[str]) -> Iterator[tuple[Entry, str]]:
    """Each entry and the name of its network."""
    base_2d = read_yaml(find_config(BASE_2D))
    for prefix in (OWN, BORROWED):
        for name, path in shipped_configs().items():
            if not name.startswith(prefix):
                continue
            content = read_yaml(path)
            network = dict(content.get("network", {}))
            label = name.removeprefix(prefix).removesuffix("2d").removesuffix("3d").rstrip("_")
            if prefix == BORROWED:
                content = _on(base_2d, content)
            entry = _entry(label, int(network.get("spatial_dims", 3)), content, assignments)
            yield entry, str(network.get("name", label))


def _on(base: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """The base experiment with the network and the optimizer of another."""
    optimizer = content.get("training", {}).get("optimizer")
    training = {key: value for key, value in base["training"].items() if key != "optimizer"}
    given = {} if optimizer is None else {"optimizer": optimizer}
    return {**base, "network": content["network"], "training": {**training, **given}}


def _entry(label: str, dims: int | None, content: Mapping[str, Any], assignments: Sequence[str]) -> Entry:
    """An entry whose experiment is checked; one that is refused, or needs what is not installed, says so."""
    try:
        content = apply_assignments(content, assignments)
        network = validate(_Network, {"network": content.get("network", {})}, label).network
        network.check_installed()
        patch = validate(PatchSettings, content.get("patch", {}), label)
        sized = {**patch.model_dump(mode="json"), "size": fitted(network, patch.size)}
        named = {**content, "patch": sized, "name": f"{label}_{network.spatial_dims}d"}
        return Entry(label, network.spatial_dims, validate(ExperimentConfig, named, label))
    except ConfigError as error:
        return Entry(label, dims or 3, None, str(error))


class _Network(Settings):
    """A network block by itself."""

    network: Annotated[NetworkConfig, NETWORKS]


def _once(found: Iterator[tuple[Entry, str]]) -> Iterator[tuple[Entry, str]]:
    """The first of each label and number of axes."""
    seen = set()
    for entry, network in found:
        if (entry.label, entry.dims) not in seen:
            seen.add((entry.label, entry.dims))
            yield entry, network


def _some(entries: list[Entry]) -> list[Entry]:
    """The entries. Raises ConfigError, with the first reason, where every one is skipped."""
    if all(entry.experiment is None for entry in entries):
        reason = entries[0].skipped if entries else "none has that number of axes; choose --dims both"
        raise ConfigError(f"nothing to compare: {reason}")
    return entries
