"""Which trained model a program uses and how, so that every verb that takes MODEL opens it the same way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medseg.inference.predictor import Predictor
    from medseg.trained_model import TrainedModel
    from medseg.volume import Segmentation, Volume


@dataclass(frozen=True)
class ModelUse:
    """A model's or run's folder, the `--set` assignments to its use, and the device."""

    folder: Path
    assignments: tuple[str, ...] = ()
    device: str = "auto"

    def open(self) -> tuple[TrainedModel, Callable[[Volume], Segmentation]]:
        """The model as it is to be used, and the function that segments with it; raises as `predictor` does."""
        model, predictor = self.predictor()
        return model, lambda volume: model.segment(volume, predictor)

    def predictor(self) -> tuple[TrainedModel, Predictor]:
        """The model as it is to be used, and its predictor on the device.

        Raises ConfigError for assignments that it does not allow, ModelError where it is absent or damaged.
        """
        from medseg.devices import choose_device
        from medseg.trained_model import load_model

        device = choose_device(self.device)
        model = load_model(self.folder).adapted(self.assignments)
        return model, model.predictor(device)
