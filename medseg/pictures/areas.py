"""The labels of one slice as areas of a picture, and their borders."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from PIL import Image

from medseg.pictures.page import RGB
from medseg.pictures.planes import Plane
from medseg.volume import Segmentation

CONTOUR = 2  # px: the width of a label's border


def areas(segmentation: Segmentation, plane: Plane, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Each label of the slice at a panel's size, bool; voxels keep their corners, absent labels drop out."""
    flat, found = _slice(segmentation, plane), {}
    for name in segmentation.labels.names:
        mask = segmentation.labels.mask(flat, name)
        if mask.any():
            picture = Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
            found[name] = np.asarray(picture, dtype=bool)
    return found


def outlined(
    picture: Image.Image, shown: Mapping[str, np.ndarray], colours: Mapping[str, RGB], width: int = CONTOUR
) -> Image.Image:
    """The picture under the border of each area in its label's colour."""
    pixels = np.array(picture)
    for name, area in shown.items():
        pixels[contour(area, width)] = colours[name]
    return Image.fromarray(pixels)


def contour(area: np.ndarray, width: int) -> np.ndarray:
    """The outermost pixels of a mask, `width` of them deep; the edge of the picture is no border."""
    core = area
    for _ in range(width):
        around = np.pad(core, 1, mode="edge")
        core = core & around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return area & ~core


def _slice(segmentation: Segmentation, plane: Plane) -> np.ndarray:
    """The shown slice as a label array of the same LabelSet: `(rows, columns)`, or `(S, rows, columns)`."""
    if segmentation.labels.is_exclusive:
        return plane.cut(segmentation.array)
    return np.stack([plane.cut(one) for one in segmentation.array])
