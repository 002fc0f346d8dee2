"""Which measurements are taken and at what tolerance, as settings that import no numerical library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from medseg.config import Settings

# Name of each measurement in tables and trackers -> what it is; the definitions are in `overlap` and `surface`.
METRICS: dict[str, str] = {
    "dice": "Dice coefficient, 2 TP / (2 TP + FP + FN)",
    "iou": "intersection over union, TP / (TP + FP + FN)",
    "precision": "share of the predicted voxels that are right, TP / (TP + FP)",
    "recall": "share of the true voxels that are found, TP / (TP + FN)",
    "accuracy": "share of all voxels that are right, (TP + TN) / all",
    "hd95": "Hausdorff distance, the larger of the two directed 95th percentiles, mm",
    "assd": "average symmetric surface distance, mm",
    "nsd": "normalised surface Dice, share of both surfaces that lie within the tolerance",
    "volume_error_ml": "volume of the prediction less that of the truth, ml",
    "volume_error_percent": "the same, in percent of the truth's volume",
}


class MetricsConfig(Settings):
    """How predictions are measured against the truth."""

    distances: bool = True  # whether surface distances (hd95, assd, nsd) are taken: the slow part on large volumes
    nsd_tolerance_mm: Annotated[float, Field(ge=0)] = 1.0  # px where a grid knows no mm
    nsd_tolerances_mm: Mapping[str, Annotated[float, Field(ge=0)]] = {}  # label or region -> its own tolerance

    def tolerance(self, label: str) -> float:
        """The NSD tolerance of one label or region."""
        return self.nsd_tolerances_mm.get(label, self.nsd_tolerance_mm)
