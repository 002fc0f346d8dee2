"""The random changes that a network should not care about, as a catalogue over MONAI's dictionary transforms.

Geometry moves image and label together (linear and nearest), intensity changes the image alone.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import AfterValidator, Field

from medseg.config import Catalogue, NamedSettings

Probability = Annotated[float, Field(ge=0, le=1)]
Axis = Annotated[int, Field(ge=0)]
Above = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(gt=0, le=1)]


def _rising(ends: tuple[float, float]) -> tuple[float, float]:
    if ends[0] > ends[1]:
        raise ValueError(f"{list(ends)} is no range; give the lower end first")
    return ends


Range = Annotated[tuple[Above, Above], AfterValidator(_rising)]
RangeFromZero = Annotated[tuple[NotNegative, NotNegative], AfterValidator(_rising)]
LogGain = Annotated[float, Field(ge=0, le=3)]
RangeOfLogGains = Annotated[tuple[LogGain, LogGain], AfterValidator(_rising)]
RangeOfShares = Annotated[tuple[Probability, Probability], AfterValidator(_rising)]
_BOTH = ["image", "label"]
_MODES = ["bilinear", "nearest"]
_PADDING = ["border", "zeros"]


class AugmentationConfig(NamedSettings):
    """One random change, done with `probability` to each patch."""

    probability: Probability = 0.5

    @abstractmethod
    def build(self, dims: int) -> list[Any]:
        """MONAI dictionary transforms for patches of `dims` spatial dimensions."""


class Flip(AugmentationConfig):
    """Mirrors along each listed axis, each with its own draw; from left to right, a label becomes its pair."""

    name: Literal["flip"] = "flip"
    axes: tuple[Axis, ...] = (0,)

    def build(self, dims: int) -> list[Any]:
        from medseg.data.monai_transforms import RandMirrord

        return [RandMirrord(_BOTH, self.probability, axis) for axis in self.axes]


class Rotate90(AugmentationConfig):
    """Turns by 90, 180 or 270 degrees in one plane; the patch must be square there."""

    name: Literal["rotate90"] = "rotate90"
    plane: tuple[Axis, Axis] = (0, 1)

    def build(self, dims: int) -> list[Any]:
        from monai.transforms import RandRotate90d

        return [RandRotate90d(_BOTH, prob=self.probability, max_k=3, spatial_axes=self.plane)]


class Affine(AugmentationConfig):
    """Rotation (degrees about each axis), scaling and shear (parts of 1) and shift (voxels), up to the given sizes."""

    name: Literal["affine"] = "affine"
    rotate_degrees: float = Field(default=15.0, ge=0, le=180)
    scale: float = Field(default=0.12, ge=0, lt=1)
    shear: float = Field(default=0.0, ge=0, lt=1)
    shift: float = Field(default=0.0, ge=0)

    def build(self, dims: int) -> list[Any]:
        from medseg.data.plain_transforms import AffineRanges, RandAffineMapd

        ranges = AffineRanges(float(np.deg2rad(self.rotate_degrees)), self.scale, self.shear, self.shift)
        return [RandAffineMapd(_BOTH, self.probability, ranges)]


class Elastic(AugmentationConfig):
    """Smooth random displacement (Simard et al., 2003): width of the smoothing and size of the shift, in voxels."""

    name: Literal["elastic"] = "elastic"
    smoothing: Range = (5.0, 8.0)
    magnitude: RangeFromZero = (50.0, 100.0)

    def build(self, dims: int) -> list[Any]:
        from monai.transforms import Rand2DElasticd, Rand3DElasticd

        common: dict[str, Any] = {"prob": self.probability, "mode": _MODES, "padding_mode": _PADDING}
        if dims == 2:
            spacing = (max(2.0, self.smoothing[0]),) * 2
            shift = (self.magnitude[0] / 50, self.magnitude[1] / 50)
            return [Rand2DElasticd(_BOTH, spacing=spacing, magnitude_range=shift, **common)]
        return [Rand3DElasticd(_BOTH, sigma_range=self.smoothing, magnitude_range=self.magnitude, **common)]


class GridDistortion(AugmentationConfig):
    """Stretches the cells of a coarse grid against one another."""

    name: Literal["grid_distortion"] = "grid_distortion"
    cells: int = Field(default=4, ge=1)
    limit: float = Field(default=0.1, ge=0, lt=1)

    def build(self, dims: int) -> list[Any]:
        from monai.transforms import RandGridDistortiond

        limits = (-self.limit, self.limit)
        settings: dict[str, Any] = {"num_cells": self.cells, "mode": _MODES, "padding_mode": _PADDING}
        return [RandGridDistortiond(_BOTH, prob=self.probability, distort_limit=limits, **settings)]


class ResizedCrop(AugmentationConfig):
    """A box of a random share of each edge at a random place, stretched back to the patch."""

    name: Literal["resized_crop"] = "resized_crop"
    share: Annotated[tuple[Share, Share], AfterValidator(_rising)] = (0.7, 1.0)

    def build(self, dims: int) -> list[Any]:
        from medseg.data.monai_transforms import RandResizedCropd

        return [RandResizedCropd(_BOTH, self.probability, self.share)]


class Noise(AugmentationConfig):
    """Gaussian noise of a random standard deviation up to `deviation`, in units of the prepared image."""

    name: Literal["noise"] = "noise"
    probability: Probability = 0.15
    deviation: float = Field(default=0.1, gt=0)

    def build(self, dims: int) -> list[Any]:
        from medseg.data.plain_transforms import RandNoised

        return [RandNoised("image", self.probability, self.deviation)]


class Blur(AugmentationConfig):
    """Gaussian blur of a random width in voxels."""

    name: Literal["blur"] = "blur"
    probability: Probability = 0.15
    width: RangeFromZero = (0.5, 1.0)

    def build(self, dims: int) -> list[Any]:
        from monai.transforms import RandGaussianSmoothd

        return [RandGaussianSmoothd("image", self.width, self.width, self.width, prob=self.probability)]


class Brightness(AugmentationConfig):
    """Multiplies the image by 1 plus or minus up to `change`."""

    name: Literal["brightness"] = "brightness"
    probability: Probability = 0.15
    change: float = Field(default=0.25, gt=0, lt=1)

    def build(self, dims: int) -> list[Any]:
        from monai.transforms import RandScaleIntensityd

        return [RandScaleIntensityd("image", factors=self.change, prob=self.probability)]


class Contrast(AugmentationConfig):
    """Stretches values about the image's mean by 1 plus or minus up to `change`."""

    name: Literal["contrast"] = "contrast"
    probability: Probability = 0.15
    change: float = Field(default=0.25, gt=0, lt=1)

    def build(self, dims: int) -> list[Any]:
        from monai.transforms import RandScaleIntensityFixedMeand

        return [RandScaleIntensityFixedMeand("image", factors=self.change, prob=self.probability)]


class Gamma(AugmentationConfig):
    """Raises the image, scaled to 0..1, to a random power and restores its mean and deviation."""

    name: Literal["gamma"] = "gamma"
    probability: Probability = 0.15
    power: Range = (0.7, 1.5)
    inverted: bool = False

    def build(self, dims: int) -> list[Any]:
        from monai.transforms import RandAdjustContrastd

        settings: dict[str, Any] = {"invert_image": self.inverted, "retain_stats": True}
        return [RandAdjustContrastd("image", prob=self.probability, gamma=self.power, **settings)]


class LowResolution(AugmentationConfig):
    """Samples the image down by a random factor and up again, as a thick-sliced scan would look."""

    name: Literal["low_resolution"] = "low_resolution"
    probability: Probability = 0.15
    factor: Range = (0.5, 1.0)

    def build(self, dims: int) -> list[Any]:
        from monai.transforms import RandSimulateLowResolutiond

        up = "trilinear" if dims == 3 else "bilinear"
        return [RandSimulateLowResolutiond("image", prob=self.probability, zoom_range=self.factor, upsample_mode=up)]


class Colour(AugmentationConfig):
    """Saturation and gain of each channel of an RGB image."""

    name: Literal["colour"] = "colour"
    probability: Probability = 0.3
    saturation: float = Field(default=0.3, ge=0, lt=1)
    gain: float = Field(default=0.1, ge=0, lt=1)

    def build(self, dims: int) -> list[Any]:
        from medseg.data.monai_transforms import RandColourd

        return [RandColourd("image", self.probability, self.saturation, self.gain)]


class HistogramShift(AugmentationConfig):
    """Bends each channel's intensities by a random rising line through `points` knots; order and range stay.

    Its steepest slope is at most the square of `steepness` times its least.
    """

    name: Literal["histogram_shift"] = "histogram_shift"
    probability: Probability = 0.3
    points: int = Field(default=6, ge=3, le=64)
    steepness: float = Field(default=3.0, ge=1, le=100)

    def build(self, dims: int) -> list[Any]:
        from medseg.data.domain_shift import RandMonotoneMapd

        return [RandMonotoneMapd("image", self.probability, self.points, self.steepness)]


class BiasField(AugmentationConfig):
    """A smooth random gain over the patch, as the coils of an MR scanner leave it.

    The gain is the exponential of a polynomial of `degree`, within exp(-s) and exp(s) with s drawn from `strength`. It
    multiplies what lies above the patch's least value, for a z-scored image has no zero signal to multiply from.
    """

    name: Literal["bias_field"] = "bias_field"
    probability: Probability = 0.3
    degree: int = Field(default=3, ge=1, le=6)
    strength: RangeOfLogGains = (0.1, 0.4)

    def build(self, dims: int) -> list[Any]:
        from medseg.data.domain_shift import RandSmoothGaind

        return [RandSmoothGaind("image", self.probability, self.degree, self.strength)]


class RandomConvolutions(AugmentationConfig):
    """Blends the image with the output of a shallow random network, at the image's norm: other contrast and texture.

    The global intensity non-linear augmentation of Ouyang et al., "Causality-inspired single-source domain
    generalization for medical image segmentation" (IEEE TMI 2022). Of the blend, a share drawn from `blend` is the
    network's; kernels of width 1 alone change contrast and leave texture.
    """

    name: Literal["random_convolutions"] = "random_convolutions"
    layers: int = Field(default=4, ge=1, le=8)
    kernels: tuple[Literal[1, 3], ...] = Field(default=(1, 3), min_length=1)
    blend: RangeOfShares = (0.0, 1.0)

    def build(self, dims: int) -> list[Any]:
        from medseg.data.domain_shift import RandConvolutionsd

        return [RandConvolutionsd("image", self.probability, self.layers, self.kernels, self.blend)]


AUGMENTATIONS = Catalogue[AugmentationConfig](
    "augmentations",
    AugmentationConfig,
    [
        Flip,
        Rotate90,
        Affine,
        Elastic,
        GridDistortion,
        ResizedCrop,
        Noise,
        Blur,
        Brightness,
        Contrast,
        Gamma,
        LowResolution,
        Colour,
        HistogramShift,
        BiasField,
        RandomConvolutions,
    ],
)
Augmentation = Annotated[AugmentationConfig, AUGMENTATIONS]
