"""Which piece of a case a network is shown."""

from __future__ import annotations

from pydantic import Field, model_validator

from medseg.config import Settings


class PatchSettings(Settings):
    """The size of a patch in voxels after preprocessing, and how training draws its place."""

    size: tuple[int, ...]
    smaller: tuple[tuple[int, ...], ...] = ()  # further sizes: each training step draws one of all, evenly
    foreground_share: float = Field(default=1 / 3, ge=0, le=1)  # of the draws are centred on a label
    slice_axis: int | None = Field(default=None, ge=0, le=2)  # a 2D network on slices across this axis of volumes

    @model_validator(mode="after")
    def _plausible(self) -> PatchSettings:
        wanted = (2,) if self.slice_axis is not None else (2, 3)
        if len(self.size) not in wanted or min(self.size) < 1:
            counts = " or ".join(map(str, wanted))
            raise ValueError(f"size {list(self.size)} must be {counts} numbers above 0")
        for one in self.smaller:
            if len(one) != len(self.size) or any(
                not 0 < edge <= most for edge, most in zip(one, self.size, strict=False)
            ):
                raise ValueError(
                    f"smaller {list(one)} must be {len(self.size)} numbers from 1 to those of size {list(self.size)}, "
                    "which decides the memory that a step needs"
                )
        return self

    @property
    def sizes(self) -> tuple[tuple[int, ...], ...]:
        """All that a training step may take, the largest first."""
        return (self.size, *self.smaller)

    @property
    def box(self) -> tuple[int, ...]:
        """The patch in the case's own dimensions: one voxel thick across the slice axis."""
        return self.boxed(self.size)

    def boxed(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The same for another size."""
        if self.slice_axis is None:
            return size
        return (*size[: self.slice_axis], 1, *size[self.slice_axis :])
