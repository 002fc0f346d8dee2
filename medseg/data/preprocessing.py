"""The deterministic steps between a file and a network, the same for training, validation and inference."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, field_validator

from medseg.config import Settings
from medseg.data.intensity import Intensity, ZScore, refuse_absent_channels
from medseg.errors import DataError, GeometryError
from medseg.geometry import Geometry
from medseg.volume import Segmentation, Volume

if TYPE_CHECKING:
    from monai.data import MetaTensor


class CropForeground(Settings):
    """Cuts away what lies outside the box of voxels above `threshold` (in source values), plus `margin` voxels."""

    threshold: float = 0.0
    margin: int = Field(default=0, ge=0)


class Preprocessing(Settings):
    """Statistics of the whole image, then one grid map (orientation, spacing, crop), then point-wise intensity."""

    orientation: str | None = "RAS"  # None keeps the file's axes, as 2D pictures do
    spacing_mm: tuple[float, ...] | None = None  # None keeps each image's own
    crop_foreground: CropForeground | None = None
    intensity: tuple[Intensity, ...] = (ZScore(),)

    @field_validator("orientation")
    @classmethod
    def _three_axes(cls, value: str | None) -> str | None:
        if value is not None and sorted(_AXIS.get(letter, "?") for letter in value) != ["A", "R", "S"]:
            raise ValueError(f"{value!r} is no orientation; give three letters such as RAS or LPS")
        return value

    @field_validator("spacing_mm")
    @classmethod
    def _positive(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and (len(value) not in (2, 3) or min(value) <= 0):
            raise ValueError(f"{list(value)} is no spacing; give 2 or 3 sizes above 0 mm")
        return value

    def left_right_axis(self, dims: int) -> int | None:
        """The axis of a prepared case of so many dimensions that runs between left and right; None where it may be any.

        On an oblique scan it is the axis nearest to that.
        """
        if dims != 3 or self.orientation is None:
            return None
        return next(axis for axis, letter in enumerate(self.orientation) if letter in "LR")


_AXIS = {"R": "R", "L": "R", "A": "A", "P": "A", "S": "S", "I": "S"}


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case as the network sees it: image `(C, *S)` float32, label `(1 or S, *S)`, and the grid they now lie on."""

    image: np.ndarray
    label: np.ndarray | None
    geometry: Geometry
    source: Geometry


def prepare(volume: Volume, settings: Preprocessing, label: Segmentation | None = None) -> Prepared:
    """Runs the steps on a whole array with MONAI's dictionary transforms.

    Raises GeometryError where label and image lie on different grids, DataError where a crop leaves nothing or an
    intensity step names a channel that the image does not have.
    """
    if label is not None and not label.geometry.matches(volume.geometry):
        raise GeometryError(
            f"{label.provenance.source}: label grid ({label.geometry.describe()}) is not the image's "
            f"({volume.geometry.describe()}); resample the label onto the image"
        )
    refuse_absent_channels(settings.intensity, volume.channels, volume.provenance.source)
    case: Mapping[Hashable, Any] = as_monai(volume, label)
    case = preprocessing_transforms(settings, volume.geometry.dims, with_label=label is not None)(case)
    image: MetaTensor = case["image"]
    if 0 in image.shape:
        raise DataError(f"{volume.provenance.source}: crop_foreground leaves nothing; lower its threshold")
    geometry = _geometry_of(image, volume.geometry)
    prepared_label = None if label is None else _plain(case["label"])
    return Prepared(_plain(image), prepared_label, geometry, volume.geometry)


def preprocessing_transforms(settings: Preprocessing, dims: int, with_label: bool) -> Any:
    """A `monai.transforms.Compose` over `{"image": MetaTensor (C, *S), "label": MetaTensor}`."""
    from monai import transforms as mt

    from medseg.data.monai_transforms import ApplyScalesd, MeasureScalesd

    keys = ["image", "label"] if with_label else ["image"]
    modes = ["bilinear", "nearest"][: len(keys)]
    steps: list[Any] = [MeasureScalesd("image", settings.intensity)]
    if settings.orientation is not None and dims == 3:
        steps.append(mt.Orientationd(keys, axcodes=settings.orientation, labels=None))
    if settings.spacing_mm is not None:
        if len(settings.spacing_mm) != dims:
            raise GeometryError(f"spacing_mm {list(settings.spacing_mm)} does not fit an image of {dims} dimensions")
        steps.append(mt.Spacingd(keys, pixdim=settings.spacing_mm, mode=modes, padding_mode="border"))
    if settings.crop_foreground is not None:
        crop = settings.crop_foreground
        above = _Above(crop.threshold)
        steps.append(mt.CropForegroundd(keys, "image", above, margin=crop.margin, allow_smaller=True))
    steps.append(ApplyScalesd("image"))
    return mt.Compose(steps)


@dataclass(frozen=True)
class _Above:
    """What counts as foreground; a class and not a lambda, so that it can be sent to another process."""

    threshold: float

    def __call__(self, values: Any) -> Any:
        return values > self.threshold


def as_monai(volume: Volume, label: Segmentation | None = None) -> dict[Hashable, Any]:
    """`{"image": MetaTensor (C, *S) float32, "label": MetaTensor (1 or S, *S)}` with RAS affines, as MONAI has them."""
    import torch
    from monai.data import MetaTensor

    affine = torch.from_numpy(volume.geometry.affine_4x4)
    case: dict[Hashable, Any] = {"image": MetaTensor(torch.from_numpy(volume.array.astype(np.float32)), affine=affine)}
    if label is not None:
        array = label.array[None] if label.labels.is_exclusive else label.array
        case["label"] = MetaTensor(torch.from_numpy(array.astype(np.float32)), affine=affine.clone())
    return case


def _plain(tensor: Any) -> np.ndarray:
    return np.ascontiguousarray(tensor.as_tensor().numpy())


def _geometry_of(image: MetaTensor, source: Geometry) -> Geometry:
    affine = image.affine.numpy().astype(np.float64)
    kept = [*range(source.dims), 3]
    affine = affine[np.ix_(kept, kept)]
    return Geometry(tuple(image.shape[1:]), affine, source.unit)


__all__ = ["CropForeground", "Prepared", "Preprocessing", "as_monai", "prepare"]
