"""Runs a network over whole volumes and brings the result back to the grid that the volume came on."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from medseg.data.patches import PatchSettings
from medseg.data.preprocessing import Preprocessing, prepare
from medseg.data.resampling import resample
from medseg.devices import autocast, choose_precision
from medseg.errors import ModelError
from medseg.inference.settings import InferenceSettings
from medseg.labels import LabelSet
from medseg.volume import Segmentation, Volume

_NEVER = -1e4  # a logit that no softmax or sigmoid tells from minus infinity


class Predictor:
    """A network with its preprocessing, ready for `predict`; loaded once, used for many cases."""

    def __init__(
        self,
        network: nn.Module,
        labels: LabelSet,
        preprocessing: Preprocessing,
        patch: PatchSettings,
        settings: InferenceSettings | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.settings = settings or InferenceSettings()
        self.device = device or torch.device("cpu")
        self.network = network.to(self.device)
        self.labels, self.preprocessing, self.patch = labels, preprocessing, patch
        self.dtype = choose_precision(self.settings.precision, self.device)
        too_many = [axis for axis in self.settings.flips if axis >= len(patch.box)]
        if too_many:
            raise ModelError(f"inference.flips names axis {too_many[0]}, the cases have axes 0 to {len(patch.box) - 1}")

    def predict(self, volume: Volume, made_by: str | None = None) -> Segmentation:
        """The labels of a volume on its own grid. Raises ModelError where the volume does not fit the network."""
        return self.decide(self.probabilities(volume), volume, made_by)

    def decide(self, probabilities: np.ndarray, volume: Volume, made_by: str | None = None) -> Segmentation:
        """The labels that probabilities `(K, *S)` of a volume ask for."""
        array = self.labels.decide(torch.from_numpy(probabilities)).numpy()
        if self.labels.is_exclusive:
            array = array.astype(np.min_scalar_type(max(self.labels.values)))
        provenance = replace(volume.provenance, made_by=made_by)
        return Segmentation(array, volume.geometry, self.labels, provenance)

    def probabilities(self, volume: Volume) -> np.ndarray:
        """Those of each output `(K, *S)` float32 on the volume's own grid, outside the network's that of background.

        Raises as `predict` does.
        """
        if volume.geometry.dims != len(self.patch.box):
            raise ModelError(
                f"{volume.provenance.source}: has {volume.geometry.dims} dimensions, "
                f"the model was trained on {len(self.patch.box)}; give it the kind of image it knows"
            )
        prepared = prepare(volume, self.preprocessing)
        logits = self.logits(prepared.image)
        fill = [_NEVER] * logits.shape[0]
        if self.labels.is_exclusive:
            fill[0] = 0.0
        on_source = resample(logits, prepared.geometry, volume.geometry, "linear", fill)
        return self.labels.probabilities(torch.from_numpy(on_source)[None])[0].numpy()

    def logits(self, image: np.ndarray) -> np.ndarray:
        """A prepared image `(C, *S)` -> logits `(K, *S)` float32, averaged over windows and flips.

        What a left-right flip takes for the left one of a pair is the right one.
        """
        was_training = self.network.training
        self.network.eval()
        padded, inner = _pad(image, self.patch.box)
        batch = torch.from_numpy(padded)[None].to(self.device)
        with torch.inference_mode(), autocast(self.device, self.dtype):
            total = torch.zeros(())
            flips = _combinations(self.settings.flips)
            mirror = self.preprocessing.left_right_axis(len(self.patch.box)) if self.labels.has_pairs else None
            for axes in flips:
                spatial = [axis + 2 for axis in axes]
                seen = self._slide(batch.flip(spatial)).flip(spatial)
                total = total + (seen[:, self.labels.mirrored] if mirror in axes else seen).float().cpu()
        self.network.train(was_training)
        return (total / len(flips))[0][(slice(None), *inner)].numpy()

    def _slide(self, batch: torch.Tensor) -> torch.Tensor:
        """`(1, C, *S)` -> logits `(1, K, *S)` by overlapping windows."""
        from monai.inferers import sliding_window_inference

        result = sliding_window_inference(
            batch,
            roi_size=self.patch.box,
            sw_batch_size=self.settings.window_batch,
            predictor=self._window_function(),
            overlap=self.settings.overlap,
            mode=self.settings.blending,
        )
        assert isinstance(result, torch.Tensor)
        return result

    def _window_function(self) -> Callable[[torch.Tensor], torch.Tensor]:
        """The network on one batch of windows; a 2D network sees the slices of a volume."""
        if self.patch.slice_axis is None:
            return lambda windows: self.network(windows).float()
        axis = self.patch.slice_axis + 2
        return lambda windows: self.network(windows.squeeze(axis)).unsqueeze(axis).float()


def _combinations(axes: tuple[int, ...]) -> list[tuple[int, ...]]:
    return [chosen for count in range(len(axes) + 1) for chosen in itertools.combinations(axes, count)]


def _pad(image: np.ndarray, size: tuple[int, ...]) -> tuple[np.ndarray, tuple[slice, ...]]:
    """An image at least `size` large, padded as training pads (its minimum, both sides), and where the image lies."""
    margins = [max(0, wanted - got) for wanted, got in zip(size, image.shape[1:], strict=True)]
    before = [-(-margin // 2) for margin in margins]
    widths = [(0, 0), *((b, margin - b) for b, margin in zip(before, margins, strict=True))]
    inner = tuple(slice(b, b + extent) for b, extent in zip(before, image.shape[1:], strict=True))
    return np.pad(image, widths, constant_values=float(image.min())), inner
