"""Generated studies whose truth is known by construction: for the demo and for tests, where no data are at hand."""

from __future__ import annotations

import numpy as np

from medseg.geometry import Geometry
from medseg.labels import Label, LabelSet
from medseg.volume import Provenance, Segmentation, Volume

PHANTOM_LABELS = LabelSet(
    labels=(Label(name="head", value=1), Label(name="tail", value=2)), regions={"whole": ("head", "tail")}
)
_SHAPE = (40, 48, 32)


def phantom(seed: int, shape: tuple[int, int, int] = _SHAPE) -> tuple[Volume, Segmentation]:
    """A noisy MR-like volume of 1 mm voxels with a bent structure: an ellipsoid `head` in front of a `tail`.

    Place, size, tilt, contrast, bias field and noise depend on `seed` alone; values are whole numbers from 0.
    """
    rng = np.random.default_rng(seed)
    geometry = Geometry(shape, _affine(rng))
    axes = [np.arange(size) - (size - 1) / 2 for size in shape]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1) - rng.uniform(-3, 3, size=3)
    tilt = np.deg2rad(rng.uniform(-20, 20))
    x, y, z = np.moveaxis(grid, -1, 0)
    y, z = np.cos(tilt) * y + np.sin(tilt) * z, np.cos(tilt) * z - np.sin(tilt) * y
    head = _ellipsoid((x, y - 6, z), rng.uniform((6, 6, 5), (8, 8, 7)))
    tail = _ellipsoid((x - 2, y + 7, z + 2), rng.uniform((4, 8, 4), (6, 11, 5))) & ~head
    label = head.astype(np.uint8) + 2 * tail.astype(np.uint8)

    tissue = 200 + 25 * np.sin(x / 5 + rng.uniform(0, 6)) * np.cos(z / 4 + rng.uniform(0, 6))
    image = np.where(head, 320 + rng.uniform(-20, 20), np.where(tail, 270 + rng.uniform(-15, 15), tissue))
    bias = 1 + 0.15 * (x * rng.normal() + y * rng.normal() + z * rng.normal()) / max(shape)
    image = image * bias + rng.normal(scale=25, size=shape)
    values = np.clip(np.rint(image * rng.uniform(0.5, 3)), 0, 4095).astype(np.int16)
    provenance = Provenance(source=f"phantom {seed}", modality="MR")
    return Volume(values[None], geometry, provenance), Segmentation(label, geometry, PHANTOM_LABELS, provenance)


def _ellipsoid(places: tuple[np.ndarray, np.ndarray, np.ndarray], radii: np.ndarray) -> np.ndarray:
    return np.asarray(sum((place / radius) ** 2 for place, radius in zip(places, radii, strict=True)) < 1)


def _affine(rng: np.random.Generator) -> np.ndarray:
    """1 mm voxels, turned a little about the superior axis, somewhere in the patient."""
    turn = np.deg2rad(rng.uniform(-8, 8))
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    affine[:3, 3] = rng.uniform(-60, 20, size=3).round(1)
    return affine
