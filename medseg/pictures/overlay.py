"""Image, truth and prediction side by side in one PNG, so that a person sees at a glance what a score hides."""

from __future__ import annotations

import io
from collections.abc import Collection

import numpy as np
from PIL import Image, ImageDraw

from medseg.errors import GeometryError
from medseg.labels import LabelSet
from medseg.pictures.page import INK, PAPER, RGB, Entry, Panel, compose, text_font
from medseg.pictures.planes import Plane, choose_plane
from medseg.volume import Segmentation, Volume

_TRUTH: RGB = (255, 255, 255)
_COMFORT, _LONGEST, _NARROWEST = 384, 640, 64  # px: small slices are enlarged to the first, large ones reduced
_FILL = 0.35  # opacity of a label's area
_CONTOUR = 2  # px


def overlay(
    image: Volume,
    truth: Segmentation | None,
    prediction: Segmentation | None,
    caption: str = "",
    window: tuple[float, float] | None = None,
    channel: int = 0,
) -> bytes:
    """A PNG of one slice: image | truth | prediction, with the truth's outline in white over the prediction.

    The slice is the one with the most truth (or prediction, where no truth is), in radiological convention: see
    `planes`. Values between `window`, by default the 1st and 99th percentile of the volume's finite voxels, run from
    black to white; a 2D picture of three channels is shown in colour. Raises GeometryError where the grids differ.
    """
    found = [one for one in (truth, prediction) if one is not None]
    for one in found:
        _check_grid(one, image)
    plane = choose_plane(image.geometry, _labelled(found, image.geometry.shape))
    base = _base(image, plane, window, channel)
    panels, outlines = [Panel("image", base)], {}
    shown: set[str] = set()
    if truth is not None:
        outlines = _areas(truth, plane, base.size)
        panels.append(Panel("truth", _tinted(base, truth, outlines)))
        shown |= outlines.keys()
    if prediction is not None:
        areas = _areas(prediction, plane, base.size)
        panels.append(Panel("prediction", _outlined(_tinted(base, prediction, areas), outlines)))
        shown |= areas.keys()
    for panel in panels:
        _letter(panel.picture, plane)
    heading = " · ".join(text for text in (caption, plane.name) if text)
    legend = _legend(found[0].labels, shown, len(found) == 2 and bool(outlines)) if found else []
    return _png(compose(panels, heading, legend))


def _check_grid(one: Segmentation, image: Volume) -> None:
    if not one.geometry.matches(image.geometry):
        raise GeometryError(
            f"{one.provenance.source}: lies on {one.geometry.describe()}, the image {image.provenance.source} on "
            f"{image.geometry.describe()}; bring the label onto the image's grid"
        )


def _labelled(found: list[Segmentation], shape: tuple[int, ...]) -> np.ndarray:
    """Where the first segmentation that has any label has one, bool on the grid."""
    for one in found:
        here = np.isin(one.array, one.labels.values[1:]) if one.labels.is_exclusive else one.array.any(axis=0)
        if here.any():
            return np.asarray(here)
    return np.zeros(shape, dtype=bool)


def _base(image: Volume, plane: Plane, window: tuple[float, float] | None, channel: int) -> Image.Image:
    """The image alone, RGB, with square millimetres."""
    is_colour = image.geometry.dims == 2 and image.channels == 3
    shown = image.array if is_colour else image.array[channel : channel + 1]
    if window is None:
        window = _full_range(shown) if is_colour else _percentiles(shown)
    planes = [_to_bytes(plane.cut(one), window) for one in shown]
    picture = Image.fromarray(np.stack(planes if is_colour else planes * 3, axis=-1))
    return picture.resize(_panel_size(plane, picture.size), Image.Resampling.BICUBIC)


def _panel_size(plane: Plane, voxels: tuple[int, int]) -> tuple[int, int]:
    """Width and height in px of a slice of that many columns and rows."""
    extent = np.multiply(voxels, plane.spacing)
    longest = min(max(*voxels, _COMFORT), _LONGEST)
    width, height = np.maximum(np.round(extent * longest / extent.max()), _NARROWEST).astype(int)
    return int(width), int(height)


def _percentiles(array: np.ndarray) -> tuple[float, float]:
    """The 1st and 99th percentile of the finite values, from about a million of them."""
    flat = array.reshape(-1)
    some = flat[:: max(1, flat.size // 1_000_000)]
    finite = some[np.isfinite(some)]
    low, high = np.percentile(finite, [1, 99]) if finite.size else (0.0, 1.0)
    return float(low), float(high if high > low else finite.max(initial=low))


def _full_range(array: np.ndarray) -> tuple[float, float]:
    """The range of a colour picture's values: 0 to 1, 8 or 16 bit."""
    highest = float(np.nanmax(array, initial=0.0))
    return 0.0, 1.0 if highest <= 1 else 255.0 if highest <= 255 else 65535.0


def _to_bytes(plane: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    low, high = window
    finite = np.nan_to_num(plane.astype(np.float64), nan=low, posinf=high, neginf=low)
    scaled = (finite - low) / max(high - low, 1e-12)
    return np.asarray(np.round(255 * scaled.clip(0, 1)), dtype=np.uint8)


def _slice(segmentation: Segmentation, plane: Plane) -> np.ndarray:
    """The shown slice as a label array of the same LabelSet: `(rows, columns)`, or `(S, rows, columns)`."""
    if segmentation.labels.is_exclusive:
        return plane.cut(segmentation.array)
    return np.stack([plane.cut(one) for one in segmentation.array])


def _areas(segmentation: Segmentation, plane: Plane, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Each label of the slice at a panel's size, bool; voxels keep their corners, absent labels drop out."""
    flat, areas = _slice(segmentation, plane), {}
    for name in segmentation.labels.names:
        mask = segmentation.labels.mask(flat, name)
        if mask.any():
            picture = Image.fromarray(mask.astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
            areas[name] = np.asarray(picture, dtype=bool)
    return areas


def _tinted(base: Image.Image, segmentation: Segmentation, areas: dict[str, np.ndarray]) -> Image.Image:
    """The image under its labels: a tint on each area, the full colour along its border."""
    pixels = np.array(base, dtype=np.float64)
    for name, area in areas.items():
        colour = np.array(segmentation.labels.colour(name), dtype=np.float64)
        pixels[area] = (1 - _FILL) * pixels[area] + _FILL * colour
        pixels[_contour(area, _CONTOUR)] = colour
    return Image.fromarray(pixels.astype(np.uint8))


def _outlined(picture: Image.Image, areas: dict[str, np.ndarray]) -> Image.Image:
    """The picture under thin white outlines."""
    pixels = np.array(picture)
    for area in areas.values():
        pixels[_contour(area, 1)] = _TRUTH
    return Image.fromarray(pixels)


def _contour(area: np.ndarray, width: int) -> np.ndarray:
    """The outermost pixels of a mask, `width` of them deep; the edge of the picture is no border."""
    core = area
    for _ in range(width):
        around = np.pad(core, 1, mode="edge")
        core = core & around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return area & ~core


def _letter(picture: Image.Image, plane: Plane) -> None:
    """Draws the anatomical directions at the edges, with a dark rim so that they show on any grey."""
    if plane.letters is None:
        return
    width, height = picture.size
    places = ((5, height / 2), (width - 5, height / 2), (width / 2, 4), (width / 2, height - 4))
    draw, font = ImageDraw.Draw(picture), text_font()
    for place, anchor, letter in zip(places, ("lm", "rm", "mt", "mb"), plane.letters, strict=True):
        draw.text(place, letter, INK, font, anchor, stroke_width=2, stroke_fill=PAPER)


def _legend(labels: LabelSet, shown: Collection[str], with_outline: bool) -> list[Entry]:
    """The labels that the slice shows, in the order of their set, and the truth's outline where it is drawn."""
    entries = [Entry(name, labels.colour(name)) for name in labels.names if name in shown]
    return [*entries, Entry("outline of the truth", _TRUTH, is_area=False)] if with_outline else entries


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    return stream.getvalue()
