"""One slice of an image as a picture of its own: the ground that labels and maps are drawn on."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from medseg.errors import GeometryError
from medseg.pictures.page import INK, PAPER, text_font
from medseg.pictures.planes import Plane, choose_plane
from medseg.volume import Segmentation, Volume

_COMFORT, _LONGEST, _NARROWEST = 384, 640, 64  # px: small slices are enlarged to the first, large ones reduced


def shown_plane(image: Volume, found: Sequence[Segmentation]) -> Plane:
    """The slice with the most labels of the first segmentation that has any; else the middle one: see `planes`."""
    return choose_plane(image.geometry, _labelled(found, image.geometry.shape))


def base_picture(image: Volume, plane: Plane, window: tuple[float, float] | None, channel: int) -> Image.Image:
    """The image alone, RGB, with square millimetres."""
    is_colour = image.geometry.dims == 2 and image.channels == 3
    shown = image.array if is_colour else image.array[channel : channel + 1]
    if window is None:
        window = _full_range(shown) if is_colour else percentiles(shown)
    planes = [_to_bytes(plane.cut(one), window) for one in shown]
    picture = Image.fromarray(np.stack(planes if is_colour else planes * 3, axis=-1))
    return picture.resize(_panel_size(plane, picture.size), Image.Resampling.BICUBIC)


def percentiles(array: np.ndarray) -> tuple[float, float]:
    """The 1st and 99th percentile of the finite values, from about a million of them."""
    flat = array.reshape(-1)
    some = flat[:: max(1, flat.size // 1_000_000)]
    finite = some[np.isfinite(some)]
    low, high = np.percentile(finite, [1, 99]) if finite.size else (0.0, 1.0)
    return float(low), float(high if high > low else finite.max(initial=low))


def letter(picture: Image.Image, plane: Plane) -> None:
    """Draws the anatomical directions at the edges, with a dark rim so that they show on any grey."""
    if plane.letters is None:
        return
    width, height = picture.size
    places = ((5, height / 2), (width - 5, height / 2), (width / 2, 4), (width / 2, height - 4))
    draw, font = ImageDraw.Draw(picture), text_font()
    for place, anchor, letters in zip(places, ("lm", "rm", "mt", "mb"), plane.letters, strict=True):
        draw.text(place, letters, INK, font, anchor, stroke_width=2, stroke_fill=PAPER)


def png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def require_grid(one: Segmentation | Volume, image: Volume) -> None:
    if not one.geometry.matches(image.geometry):
        raise GeometryError(
            f"{one.provenance.source}: lies on {one.geometry.describe()}, the image {image.provenance.source} on "
            f"{image.geometry.describe()}; bring it onto the image's grid"
        )


def _labelled(found: Sequence[Segmentation], shape: tuple[int, ...]) -> np.ndarray:
    """Where the first segmentation that has any label has one, bool on the grid."""
    for one in found:
        here = np.isin(one.array, one.labels.values[1:]) if one.labels.is_exclusive else one.array.any(axis=0)
        if here.any():
            return np.asarray(here)
    return np.zeros(shape, dtype=bool)


def _panel_size(plane: Plane, voxels: tuple[int, int]) -> tuple[int, int]:
    """Width and height in px of a slice of that many columns and rows."""
    extent = np.multiply(voxels, plane.spacing)
    longest = min(max(*voxels, _COMFORT), _LONGEST)
    width, height = np.maximum(np.round(extent * longest / extent.max()), _NARROWEST).astype(int)
    return int(width), int(height)


def _full_range(array: np.ndarray) -> tuple[float, float]:
    """The range of a colour picture's values: 0 to 1, 8 or 16 bit."""
    highest = float(np.nanmax(array, initial=0.0))
    return 0.0, 1.0 if highest <= 1 else 255.0 if highest <= 255 else 65535.0


def _to_bytes(plane: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    low, high = window
    finite = np.nan_to_num(plane.astype(np.float64), nan=low, posinf=high, neginf=low)
    scaled = (finite - low) / max(high - low, 1e-12)
    return np.asarray(np.round(255 * scaled.clip(0, 1)), dtype=np.uint8)
