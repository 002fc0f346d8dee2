"""Steps that drop islands: what a network finds far from the organ is seldom part of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from medseg.postprocessing.base import PostprocessingConfig, cleaned, names_to_clean, without
from medseg.volume import Segmentation

if TYPE_CHECKING:
    import numpy as np


class KeepLargestConfig(PostprocessingConfig):
    """Keeps the largest connected component of each label or region, the first in array order among equals."""

    name: Literal["keep_largest"] = "keep_largest"
    labels: tuple[str, ...] | None = None  # labels or regions; null: every label by itself
    connectivity: Literal["faces", "corners"] = "corners"  # 6 or 26 neighbours in 3D, 4 or 8 in 2D

    def apply(self, segmentation: Segmentation) -> Segmentation:
        from medseg.morphology import largest_component

        names = names_to_clean(self.labels, segmentation.labels, self.name)
        return _keep(segmentation, names, self.name, lambda mask: largest_component(mask, self.connectivity))


class RemoveSmallConfig(PostprocessingConfig):
    """Removes the connected components of each label or region that are smaller than a volume."""

    name: Literal["remove_small"] = "remove_small"
    minimum_mm3: Annotated[float, Field(gt=0)]  # mm2 on a 2D grid, px2 on one that knows no mm
    labels: tuple[str, ...] | None = None  # labels or regions; null: every label by itself
    connectivity: Literal["faces", "corners"] = "corners"

    def apply(self, segmentation: Segmentation) -> Segmentation:
        import numpy as np

        from medseg.morphology import component_sizes

        voxels = self.minimum_mm3 / segmentation.geometry.voxel_volume * (1 - 1e-6)  # float noise of headers

        def large(mask: np.ndarray) -> np.ndarray:
            found, sizes = component_sizes(mask, self.connectivity)
            return np.concatenate([[False], sizes >= voxels])[found]

        names = names_to_clean(self.labels, segmentation.labels, self.name)
        return _keep(segmentation, names, self.name, large)


def _keep(
    segmentation: Segmentation, names: list[str], step: str, kept_part: Callable[[np.ndarray], np.ndarray]
) -> Segmentation:
    """The segmentation with only the part of each label's mask that `kept_part` gives."""
    array, labels, notes = segmentation.array, segmentation.labels, []
    for name in names:
        mask = labels.mask(array, name)
        removed = mask & ~kept_part(mask)
        if removed.any():
            array = without(array, labels, name, removed)
            notes.append(f"{step}: {int(removed.sum())} of {int(mask.sum())} voxels of {name} removed")
    return cleaned(segmentation, array, notes)
