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

ATTENTION = "attention"


class Explaining:
    """A model whose attention is shown.

    Raises ConfigError for anything else to explain, and for a network without attention.
    """

    def __init__(self, what: str, trained: TrainedModel, predictor: Predictor) -> None:
        from medseg.inference.explanation import require_attention

        if what != ATTENTION:
            raise ConfigError(f"--explain {what!r} is not known{suggestion(what, [ATTENTION])}")
        require_attention(predictor.network, trained.card.experiment.network.name)
        self.title, self.predictor = trained.card.title, predictor

    def write(self, image: Volume, segmentation: Segmentation, output: Path, name: str, files: list[Path]) -> None:
        """Writes the maps of an image and adds each file to `files` as soon as it is there.

        Maps over places: NIfTI on the source grid (TIFF of float32 for pictures, which know no mm) and a PNG of the
        slice with the most prediction. Maps over channels: their weights, by map, in one JSON file.
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
            picture = heat(image, weights, segmentation, f"{name} · {title}")
            files.append(atomic_write_bytes(output / f"{stem}.png", picture))
        if explanation.channels:
            content = json.dumps(explanation.channels, indent=2) + "\n"
            files.append(atomic_write_text(output / f"{name}_{ATTENTION}_channels.json", content))
