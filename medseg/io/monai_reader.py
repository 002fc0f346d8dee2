"""The door of medseg.io as a MONAI reader, so that MONAI's LoadImage obeys the same rules and refusals."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from monai.data import ImageReader
from monai.utils import MetaKeys, SpaceKeys, ensure_tuple

from medseg.errors import GeometryError
from medseg.io import read_image
from medseg.io.formats import extension_of
from medseg.volume import Volume

if TYPE_CHECKING:
    from medseg.io.dicom.rule import SeriesRule

Paths = Sequence[PathLike[Any] | str] | PathLike[Any] | str


class VolumeReader(ImageReader):
    """Reads every format of `read_image`: `LoadImaged(keys="image", reader=VolumeReader())`.

    The array is `(C, X, Y[, Z])`, its channels first, so that EnsureChannelFirst has nothing to do; the affine is RAS,
    4 x 4, also for pictures. Several files become the channels of one image and must share one grid.
    """

    def __init__(self, rule: SeriesRule | None = None) -> None:
        super().__init__()
        self.rule = rule

    def verify_suffix(self, filename: Paths) -> bool:
        """Whether every path is a folder or ends in a known extension."""
        paths = [Path(name) for name in ensure_tuple(filename)]
        return all(path.is_dir() or extension_of(path) is not None for path in paths)

    def read(self, data: Paths, **kwargs: Any) -> list[Path]:
        """The paths alone. Decoding waits for `get_data`: LoadImage takes an error here as a reason to try its own
        readers, which would let through what medseg refuses."""
        return [Path(name) for name in ensure_tuple(data)]

    def get_data(self, img: list[Path]) -> tuple[np.ndarray, dict[str, Any]]:
        """The array and its MONAI metadata. Raises DataError."""
        volumes = [read_image(path, self.rule) for path in img]
        first = volumes[0]
        for other in volumes[1:]:
            _require_one_grid(first, other)
        array = np.concatenate([volume.array for volume in volumes]) if len(volumes) > 1 else first.array
        affine = first.geometry.affine_4x4
        metadata: dict[str, Any] = {
            MetaKeys.AFFINE: affine,
            MetaKeys.ORIGINAL_AFFINE: affine.copy(),
            MetaKeys.SPATIAL_SHAPE: np.asarray(first.geometry.shape),
            MetaKeys.SPACE: SpaceKeys.RAS,
            MetaKeys.ORIGINAL_CHANNEL_DIM: 0,
        }
        return array, metadata


def _require_one_grid(first: Volume, other: Volume) -> None:
    if not first.geometry.matches(other.geometry):
        raise GeometryError(
            f"{other.provenance.source}: its grid ({other.geometry.describe()}) is not that of "
            f"{first.provenance.source} ({first.geometry.describe()}); resample it first"
        )
