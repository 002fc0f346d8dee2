"""A map of weights as heat over the image, so that a person sees where a network looked."""

from __future__ import annotations

import numpy as np
from PIL import Image

from medseg.pictures.page import RGB, Entry, Panel, compose
from medseg.pictures.slices import base_picture, letter, png, require_grid, shown_plane
from medseg.volume import Segmentation, Volume

_COLD: RGB = (70, 40, 160)
_WARM: RGB = (220, 60, 50)
_HOT: RGB = (255, 225, 90)
_OPACITY = 0.7  # of the hottest; the coldest leaves the image as it is


def heat(image: Volume, weights: Volume, prediction: Segmentation | None = None, caption: str = "") -> bytes:
    """A PNG of one slice: image | the image under the weights, from the volume's lowest (clear) to its highest.

    `weights` has one channel. The slice is the one that `overlay` shows of the same prediction. Raises GeometryError
    where the grids differ.
    """
    found = [] if prediction is None else [prediction]
    require_grid(weights, image)
    for one in found:
        require_grid(one, image)
    plane = shown_plane(image, found)
    base = base_picture(image, plane, None, 0)
    low, high = float(weights.array.min()), float(weights.array.max())
    shown = (plane.cut(weights.array[0]).astype(np.float32) - low) / max(high - low, 1e-12)
    scaled = np.asarray(Image.fromarray(shown).resize(base.size, Image.Resampling.BILINEAR)).clip(0, 1)
    panels = [Panel("image", base), Panel("weights", _heated(base, scaled))]
    for panel in panels:
        letter(panel.picture, plane)
    heading = " · ".join(text for text in (caption, plane.name) if text)
    steps = ((0.0, _COLD), (0.5, _WARM), (1.0, _HOT))
    legend = [Entry(f"{low + (high - low) * share:.3g}", colour) for share, colour in steps]
    return png(compose(panels, heading, legend))


def _heated(base: Image.Image, scaled: np.ndarray) -> Image.Image:
    """The picture under colours, the opacity of each pixel in proportion to its weight from 0 to 1."""
    channels = zip(_COLD, _WARM, _HOT, strict=True)
    colours = np.stack([np.interp(scaled, (0, 0.5, 1), channel) for channel in channels], axis=-1)
    opacity = _OPACITY * scaled[..., np.newaxis]
    pixels = (1 - opacity) * np.asarray(base, dtype=np.float64) + opacity * colours
    return Image.fromarray(np.round(pixels).astype(np.uint8))
