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

BASES = {2: "hippocampus_unet2d", 3: "hippocampus_unet3d"}  # what all networks of so many axes have in common
PREFIXES = {
    2: "lungs_",  # chest X-rays: their networks are tried on slices
    3: "hippocampus_",
}
_OF_NETWORKS = ("optimizer", "precision")  # of the training plan: what suits one network may not suit another
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
    """The networks of the shipped configs, each in the place of that of the base with as many axes; names choose some.

    A name is that of a config without its data and axes (`unet` for hippocampus_unet3d), or of a catalogued network.
    A network brings its optimizer, and its precision where the config sets one; data, patch, augmentation, batch size
    and all else are the base's. Where a network cannot take the patch, that is its own config's in 3D, and rounded up
    in 2D. Raises ConfigError for a name that no entry has, and where no entry is left.
    """
    found = list(_networks(assignments))
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


def fitted(network: NetworkConfig, size: Sequence[int], own_size: Sequence[int] | None = None) -> list[int]:
    """The patch size where the network can take it, else its own, else each axis of the first rounded up."""
    for candidate in (size, own_size):
        if candidate is not None and _takes(network, candidate):
            return list(candidate)
    return list(network.fitted(size))


def _takes(network: NetworkConfig, size: Sequence[int]) -> bool:
    try:
        network.check_size(size, "patch")
    except ConfigError:
        return False
    return True


def _networks(assignments: Sequence[str]) -> Iterator[tuple[Entry, str]]:
    """Each entry and the name of its network."""
    bases = {dims: read_yaml(find_config(name)) for dims, name in BASES.items()}
    for dims, prefix in PREFIXES.items():
        for name, path in shipped_configs().items():
            content = read_yaml(path)
            network = dict(content.get("network", {}))
            if not name.startswith(prefix) or network.get("spatial_dims", 3) != dims:
                continue
            own = content.get("patch", {}).get("size") if dims == 3 else None
            label = name.removeprefix(prefix).removesuffix("3d")
            yield _entry(label, dims, _on(bases[dims], content), assignments, own), str(network.get("name", label))


def _on(base: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """The base experiment with network, optimizer and precision of another."""
    plan = content.get("training", {})
    kept = {key: value for key, value in base["training"].items() if key not in _OF_NETWORKS}
    given = {key: plan[key] for key in _OF_NETWORKS if key in plan}
    return {**base, "network": content["network"], "training": {**kept, **given}}


def _entry(
    label: str,
    dims: int | None,
    content: Mapping[str, Any],
    assignments: Sequence[str],
    own_size: Sequence[int] | None = None,
) -> Entry:
    """An entry whose experiment is checked; one that is refused, or needs what is not installed, says so."""
    try:
        content = apply_assignments(content, assignments)
        network = validate(_Network, {"network": content.get("network", {})}, label).network
        network.check_installed()
        patch = validate(PatchSettings, content.get("patch", {}), label)
        sized = {**patch.model_dump(mode="json"), "size": fitted(network, patch.size, own_size)}
        named = {**content, "patch": sized, "name": f"{label}_{network.spatial_dims}d"}
        return Entry(label, network.spatial_dims, validate(ExperimentConfig, named, label))
    except ConfigError as error:
        return Entry(label, dims or 3, None, str(error))


class _Network(Settings):
    """A network block by itself."""

    network: Annotated[NetworkConfig, NETWORKS]


def _some(entries: list[Entry]) -> list[Entry]:
    """The entries. Raises ConfigError, with the first reason, where every one is skipped."""
    if all(entry.experiment is None for entry in entries):
        reason = entries[0].skipped if entries else "none has that number of axes; choose --dims both"
        raise ConfigError(f"nothing to compare: {reason}")
    return entries
