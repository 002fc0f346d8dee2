"""A map of weights as heat over the image, so that a person sees what a network weighed beside what it segmented."""

from __future__ import annotations

import numpy as np
from PIL import Image

from medseg.pictures.areas import areas, outlined
from medseg.pictures.page import RGB, Entry, Panel, compose
from medseg.pictures.slices import base_picture, letter, percentiles, png, require_grid, shown_plane
from medseg.volume import Segmentation, Volume

_COLD: RGB = (70, 40, 160)
_WARM: RGB = (220, 60, 50)
_HOT: RGB = (255, 225, 90)
_STEPS = ((0.0, _COLD), (0.5, _WARM), (1.0, _HOT))
_OPACITY = 0.7  # of the hottest; the coldest leaves the image as it is


def heat(image: Volume, weights: Volume, prediction: Segmentation | None = None, caption: str = "") -> bytes:
    """A PNG of one slice: image | the image under the weights | the weights alone, in the colours of the legend.

    `weights` has one channel. Colours run from the 1st to the 99th percentile of its volume, so that a few voxels do
    not hide the rest; values beyond them have the last colour. The labels of `prediction` are outlined on the image,
    plain and under the weights. The slice is the one that `overlay` shows of the same prediction. Raises GeometryError
    where the grids differ.
    """
    found = [] if prediction is None else [prediction]
    require_grid(weights, image)
    for one in found:
        require_grid(one, image)
    plane = shown_plane(image, found)
    base = base_picture(image, plane, None, 0)
    low, high = percentiles(weights.array)
    flat = plane.cut(weights.array[0]).astype(np.float32)
    # Clipped first: next to a voxel far beyond the colours, a resized picture would be as hot as it.
    shown = ((flat - low) / max(high - low, 1e-12)).clip(0, 1)
    scaled = np.asarray(Image.fromarray(shown).resize(base.size, Image.Resampling.BILINEAR))
    colours = _coloured(scaled)
    pictures = {"image": base, "both": _blended(base, colours, _OPACITY * scaled), "weights": _picture(colours)}
    legend = _scale(low, high)
    for one in found:
        here = areas(one, plane, base.size)
        of_labels = {name: one.labels.colour(name) for name in here}
        pictures |= {title: outlined(pictures[title], here, of_labels) for title in ("image", "both")}
        legend += [Entry(f"{name} (predicted)", colour, is_area=False) for name, colour in of_labels.items()]
    for picture in pictures.values():
        letter(picture, plane)
    heading = " · ".join(text for text in (caption, plane.name) if text)
    return png(compose([Panel(title, picture) for title, picture in pictures.items()], heading, legend))


def _scale(low: float, high: float) -> list[Entry]:
    """What the colours mean; one colour where all weights are equal."""
    if high <= low:
        return [Entry(f"{low:.3g} everywhere", _COLD)]
    values = [low + (high - low) * share for share, _ in _STEPS]
    names = (
        f"{values[0]:.3g} or less (1st percentile of the volume)",
        f"{values[1]:.3g}",
        f"{values[2]:.3g} or more (99th percentile)",
    )
    return [Entry(name, colour) for name, (_, colour) in zip(names, _STEPS, strict=True)]


def _coloured(scaled: np.ndarray) -> np.ndarray:
    """The colours of weights from 0 to 1: `(rows, columns)` -> `(rows, columns, 3)`, 0 to 255."""
    shares = [share for share, _ in _STEPS]
    channels = zip(*(colour for _, colour in _STEPS), strict=True)
    return np.stack([np.interp(scaled, shares, channel) for channel in channels], axis=-1)


def _blended(base: Image.Image, colours: np.ndarray, opacity: np.ndarray) -> Image.Image:
    """The picture under colours, each pixel by its opacity from 0 to 1."""
    shares = opacity[..., np.newaxis]
    return _picture((1 - shares) * np.asarray(base, dtype=np.float64) + shares * colours)


def _picture(colours: np.ndarray) -> Image.Image:
    return Image.fromarray(np.round(colours).astype(np.uint8))
