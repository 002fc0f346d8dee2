"""What `medseg infer --explain attention` leaves beside a segmentation: each map as numbers and as a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.config import suggestion
from medseg.errors import ConfigError

if TYPE_CHECKING:
    from medseg.inference.predictor import Predictor
    from medseg.trained_model import TrainedModel
    from medseg.volume import Segmentation, Volume
    from pipelines.console import Console

ATTENTION = "attention"


class Explaining:
    """A model whose attention is shown.

    Raises ConfigError for anything else to explain, and for a network without attention.
    """

    def __init__(self, what: str, trained: TrainedModel, predictor: Predictor, console: Console) -> None:
        from medseg.inference.explanation import require_attention

        if what != ATTENTION:
            raise ConfigError(f"--explain {what!r} is not known{suggestion(what, [ATTENTION])}")
        require_attention(predictor.network, trained.card.experiment.network.name)
        self.title, self.predictor, self.console = trained.card.title, predictor, console
        self._said = False

    def write(self, image: Volume, segmentation: Segmentation, output: Path, name: str, files: list[Path]) -> None:
        """Writes the maps of an image and adds each file to `files` as soon as it is there.

        Maps over places: NIfTI on the source grid (TIFF of float32 for pictures, which know no mm) and a PNG of the
        slice with the most prediction. Maps over channels: their weights, by map, in one JSON file; where there are
        no others, the console says so once.
        """
        from medseg.inference.explanation import explain
        from medseg.io import write_nifti
        from medseg.io.atomic import atomic_write_bytes, atomic_write_text
        from medseg.io.picture_files import write_picture_values
        from medseg.pictures import heat

        explanation = explain(self.predictor, image, self.title)
        for title, weights in explanation.volumes():
            stem = f"{name}_{ATTENTION}_{title.replace('.', '-')}"
            if image.geometry.unit == "px":
                files.append(write_picture_values(weights, output / f"{stem}.tif"))
            else:
                files.append(write_nifti(weights, output / f"{stem}.nii.gz"))
            picture = heat(image, weights, segmentation, f"{name} · {map_caption(title)}")
            files.append(atomic_write_bytes(output / f"{stem}.png", picture))
        if explanation.channels:
            content = json.dumps(explanation.channels, indent=2) + "\n"
            files.append(atomic_write_text(output / f"{name}_{ATTENTION}_channels.json", content))
        if not explanation.titles and not self._said:
            self._said = True
            self.console.say(
                "attention: this network weighs channels alone, which have no place in an image: no pictures, "
                f"the weights are in *_{ATTENTION}_channels.json"
            )


def map_caption(title: str) -> str:
    """A map's title and how to read it: "skip.1.gate (stages count from the finest, 0)"."""
    parts = title.split(".")
    notes = ["stages count from the finest, 0"] if any(part.isdecimal() for part in parts) else []
    if "self_attention" in parts:
        notes.append("attention received, 1 is an even share")
    return f"{title} ({'; '.join(notes)})" if notes else title
