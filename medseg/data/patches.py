"""Which piece of a case a network is shown."""

from __future__ import annotations

from pydantic import Field, model_validator

from medseg.config import Settings


class PatchSettings(Settings):
    """The size of a patch in voxels after preprocessing, and how training draws its place."""

    size: tuple[int, ...]
    foreground_share: float = Field(default=1 / 3, ge=0, le=1)  # of the draws are centred on a label
    slice_axis: int | None = Field(default=None, ge=0, le=2)  # a 2D network on slices across this axis of volumes

    @model_validator(mode="after")
    def _plausible(self) -> PatchSettings:
        wanted = (2,) if self.slice_axis is not None else (2, 3)
        if len(self.size) not in wanted or min(self.size) < 1:
            counts = " or ".join(map(str, wanted))
            raise ValueError(f"size {list(self.size)} must be {counts} numbers above 0")
        return self

    @property
    def box(self) -> tuple[int, ...]:
        """The patch in the case's own dimensions: one voxel thick across the slice axis."""
        if self.slice_axis is None:
            return self.size
        return (*self.size[: self.slice_axis], 1, *self.size[self.slice_axis :])
