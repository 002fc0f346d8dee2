"""Weights that a training begins from: another run's, a MONAI bundle's, or any file of tensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from pydantic import Field

from medseg.config import Settings, suggestion
from medseg.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn

_PLACES = ("model/weights.pt", "weights.pt", "models/model.pt", "models/model.safetensors")  # run, model, bundle
_PREFIXES = ("module.", "_orig_mod.", "network.", "model.")  # what wrappers put before the names
_SHOWN = 3


class StartSettings(Settings):
    """Where training begins in place of random weights: fine-tuning."""

    weights: str  # folder of a run, a model or a MONAI bundle, or a file of tensors
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")  # of the file; written down as a run begins
    anew: tuple[str, ...] = ()  # beginnings of the names of tensors that stay random, as the last layer's
    partial: bool = False  # whether tensors that the file lacks, or has in another shape, may stay random

    def path(self) -> Path:
        """The file. Raises ConfigError where there is none."""
        named = Path(self.weights).expanduser()
        if named.is_file():
            return named
        found = [named / place for place in _PLACES if (named / place).is_file()]
        if found:
            return found[0]
        problem = f"holds none of {', '.join(_PLACES)}" if named.is_dir() else "does not exist"
        raise ConfigError(
            f"training.start.weights {self.weights!r}: {problem}; give the folder of a run, a model or a MONAI bundle, "
            "or a file of tensors"
        )

    def pinned(self) -> Self:
        """With the digest of the file, so that the same one is asked for again."""
        from medseg.networks.tensor_files import file_digest

        return self if self.sha256 is not None else self.model_copy(update={"sha256": file_digest(self.path())})


class Report(NamedTuple):
    """What was loaded: tensors by name, those that stay random with the reason, and those of the file unused."""

    path: Path
    loaded: tuple[str, ...]
    random: dict[str, str]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        total = len(self.loaded) + len(self.random)
        told = [f"begins from {len(self.loaded)} of {total} tensors of {self.path}"]
        if self.random:
            told.append("random: " + _few([f"{name} ({reason})" for name, reason in self.random.items()]))
        if self.unused:
            told.append("not used: " + _few(list(self.unused)))
        return "; ".join(told)


def begin_from(network: nn.Module, settings: StartSettings) -> Report:
    """Puts the file's tensors into the network, in place, and tells which.

    Raises ConfigError where the file is not that of the digest or no file of tensors, where a name in `anew` stands for
    nothing, where something does not fit (unless `partial`), and where nothing fits at all.
    """
    from medseg.networks.tensor_files import file_digest, read_tensors

    path = settings.path()
    if settings.sha256 is not None and file_digest(path) != settings.sha256:
        raise ConfigError(f"{path}: is not the file of training.start.sha256; give that file, or drop the key")
    found = _unwrapped(read_tensors(path))
    wanted = network.state_dict()
    for beginning in settings.anew:
        if not any(name.startswith(beginning) for name in wanted):
            raise ConfigError(
                f"training.start.anew: no tensor's name begins with {beginning!r}{suggestion(beginning, wanted)}"
            )
    random: dict[str, str] = {}
    for name, tensor in wanted.items():
        if name.startswith(settings.anew):
            random[name] = "as asked"
        elif name not in found:
            random[name] = "missing"
        elif found[name].shape != tensor.shape:
            random[name] = f"{list(found[name].shape)} for {list(tensor.shape)}"
    loaded = tuple(name for name in wanted if name not in random)
    report = Report(path, loaded, random, tuple(sorted(found.keys() - wanted.keys())))
    unasked = [f"{name} ({reason})" for name, reason in random.items() if reason != "as asked"]
    if (unasked and not settings.partial) or not loaded:
        raise ConfigError(
            f"{path}: fits {len(loaded)} of the {len(wanted)} tensors of the network, not {_few(unasked)}; give "
            "weights of this very network, name what begins anew in training.start.anew, or set its key partial: true"
        )
    if broken := [name for name in loaded if not found[name].isfinite().all()]:
        raise ConfigError(f"{path}: holds values that are not finite in {broken[0]}; give a file that is whole")
    network.load_state_dict({**wanted, **{name: found[name] for name in loaded}})
    return report


def _unwrapped(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The tensors without a prefix that all of them have."""
    for prefix in _PREFIXES:
        if all(name.startswith(prefix) for name in tensors):
            return _unwrapped({name.removeprefix(prefix): tensor for name, tensor in tensors.items()})
    return tensors


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
