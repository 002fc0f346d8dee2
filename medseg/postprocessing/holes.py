"""The step that closes holes inside a label."""

from __future__ import annotations

from typing import Literal

from medseg.postprocessing.base import PostprocessingConfig, cleaned, names_to_clean
from medseg.volume import Segmentation


class FillHolesConfig(PostprocessingConfig):
    """Fills background that a label encloses wholly (in 3D: on all sides); another label inside it stays."""

    name: Literal["fill_holes"] = "fill_holes"
    labels: tuple[str, ...] | None = None  # null: every label

    def apply(self, segmentation: Segmentation) -> Segmentation:
        from medseg.morphology import fill_holes

        labels, notes = segmentation.labels, []
        array = segmentation.array.copy()
        for name in names_to_clean(self.labels, labels, self.name, regions=False):
            mask, index = labels.mask(array, name), labels.names.index(name)
            holes = fill_holes(mask) & ~mask
            if labels.is_exclusive:
                holes &= array == 0
                array[holes] = labels.labels[index].value
            else:
                array[index][holes] = True
            if holes.any():
                notes.append(f"{self.name}: {int(holes.sum())} voxels of {name} added")
        return cleaned(segmentation, array, notes)
