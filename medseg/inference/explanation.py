"""What a network's attention weighed: its maps, made window by window and blended as its logits are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from medseg.data.preprocessing import prepare
from medseg.data.resampling import resample
from medseg.errors import ConfigError
from medseg.geometry import Geometry
from medseg.inference.predictor import Predictor
from medseg.networks import NETWORKS
from medseg.networks.attention.maps import attention_maps, is_over_channels, markers
from medseg.volume import Provenance, Volume


@dataclass(frozen=True)
class Explanation:
    """The maps of one volume. Those over places lie on the network's grid until they are asked for, one at a time."""

    titles: tuple[str, ...]  # of the maps over places: "skip.0.gate"
    maps: np.ndarray  # (maps, *grid.shape) float32
    grid: Geometry
    source: Geometry
    provenance: Provenance
    channels: Mapping[str, tuple[float, ...]]  # maps over channels, the mean of all windows

    def volumes(self) -> Iterator[tuple[str, Volume]]:
        """Each map over places by title, one channel on the source grid; 0 outside the network's."""
        for title, one in zip(self.titles, self.maps, strict=True):
            on_source = resample(one[np.newaxis], self.grid, self.source, "linear", 0.0)
            yield title, Volume(on_source, self.source, self.provenance)


def require_attention(network: nn.Module, name: str) -> None:
    """Raises ConfigError where the network `name` makes no map."""
    if not markers(network):
        chosen = " or ".join(known for known, entry in NETWORKS if "attention" in entry.model_fields)
        raise ConfigError(
            f"--explain attention: this network {name!r} has no attention; train attention_unet, or {chosen} with "
            "network.attention"
        )


def explain(predictor: Predictor, volume: Volume, made_by: str | None = None) -> Explanation:
    """The attention maps of a volume, by the predictor's own windows, flips and precision.

    A map over places is blended like logits and brought to the source grid; one over channels has no place there and is
    averaged over the windows. In self-attention a position counts as it is attended to, by the mean of all queries of
    its window, with 1 for an even share.
    """
    prepared = prepare(volume, predictor.preprocessing)
    reader = _MapReader(predictor.network)
    reading = Predictor(
        reader,
        predictor.labels.without_pairs(),
        predictor.preprocessing,
        predictor.patch,
        predictor.settings,
        predictor.device,
    )
    maps = reading.logits(prepared.image)
    provenance = replace(volume.provenance, made_by=made_by)
    return Explanation(reader.titles, maps, prepared.geometry, volume.geometry, provenance, reader.channels())


class _MapReader(nn.Module):
    """A network that gives its maps over places as logits `(B, maps, *S)`, and sums up those over channels."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.titles: tuple[str, ...] = ()
        self._sums: dict[str, torch.Tensor] = {}
        self._windows = 0

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        found = attention_maps(self.network, windows)
        places = {title: made for title, made in found.items() if not is_over_channels(made)}
        for title in found.keys() - places.keys():
            summed = found[title].flatten(1).sum(dim=0).cpu()
            self._sums[title] = self._sums.get(title, torch.zeros(())) + summed
        self._windows += len(windows)
        self.titles = tuple(sorted(places))
        if not places:
            return windows[:, :0].float()
        return torch.cat([places[title] for title in self.titles], dim=1)

    def channels(self) -> dict[str, tuple[float, ...]]:
        """The mean of each map over channels."""
        return {title: tuple((self._sums[title] / self._windows).tolist()) for title in sorted(self._sums)}
