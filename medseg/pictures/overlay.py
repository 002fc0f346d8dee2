"""Image, truth and prediction side by side in one PNG, so that a person sees at a glance what a score hides."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from PIL import Image

from medseg.labels import LabelSet
from medseg.pictures.areas import CONTOUR, areas, contour, outlined
from medseg.pictures.page import RGB, Entry, Panel, compose
from medseg.pictures.slices import base_picture, letter, png, require_grid, shown_plane
from medseg.volume import Segmentation, Volume

_TRUTH: RGB = (255, 255, 255)
_FILL = 0.35  # opacity of a label's area


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
        require_grid(one, image)
    plane = shown_plane(image, found)
    base = base_picture(image, plane, window, channel)
    panels, outlines = [Panel("image", base)], {}
    shown: set[str] = set()
    if truth is not None:
        outlines = areas(truth, plane, base.size)
        panels.append(Panel("truth", _tinted(base, truth, outlines)))
        shown |= outlines.keys()
    if prediction is not None:
        predicted = areas(prediction, plane, base.size)
        tinted = _tinted(base, prediction, predicted)
        panels.append(Panel("prediction", outlined(tinted, outlines, dict.fromkeys(outlines, _TRUTH), 1)))
        shown |= predicted.keys()
    for panel in panels:
        letter(panel.picture, plane)
    heading = " · ".join(text for text in (caption, plane.name) if text)
    legend = _legend(found[0].labels, shown, len(found) == 2 and bool(outlines)) if found else []
    return png(compose(panels, heading, legend))


def _tinted(base: Image.Image, segmentation: Segmentation, shown: dict[str, np.ndarray]) -> Image.Image:
    """The image under its labels: a tint on each area, the full colour along its border."""
    pixels = np.array(base, dtype=np.float64)
    for name, area in shown.items():
        colour = np.array(segmentation.labels.colour(name), dtype=np.float64)
        pixels[area] = (1 - _FILL) * pixels[area] + _FILL * colour
        pixels[contour(area, CONTOUR)] = colour
    return Image.fromarray(pixels.astype(np.uint8))


def _legend(labels: LabelSet, shown: Collection[str], with_outline: bool) -> list[Entry]:
    """The labels that the slice shows, in the order of their set, and the truth's outline where it is drawn."""
    entries = [Entry(name, labels.colour(name)) for name in labels.names if name in shown]
    return [*entries, Entry("outline of the truth", _TRUTH, is_area=False)] if with_outline else entries
