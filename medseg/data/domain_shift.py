"""The looks that another scanner or sequence could have given to the same anatomy, as MONAI dictionary transforms.

MONAI's own would not do: its histogram shift answers NaN to nearly flat images and all but erases a channel of narrow
range beside a wide one; its bias field multiplies z-scored values, which have no zero signal to multiply from.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform

_WIDTH = 2  # channels between the layers of a random network
_LEAK = 0.2  # what passes below zero; at the usual 0.01 so few channels more often lose all contrast


class RandLookd(RandomizableTransform, MapTransform):
    """Gives an image `(C, *S)` a random look, with probability `prob`; all draws come from `self.R`."""

    def __init__(self, keys: KeysCollection, prob: float) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        case = dict(data)
        self.randomize(None)
        if self._do_transform:
            for key in self.key_iterator(case):
                case[key] = self.restyled(case[key])
        return case

    @abstractmethod
    def restyled(self, image: torch.Tensor) -> torch.Tensor:
        """A new image of the same shape and type."""


class RandMonotoneMapd(RandLookd):
    """Maps each channel's range onto itself by a rising line of `points` knots, drawn anew for each channel.

    The slopes between knots are drawn from 1 / steepness to steepness, evenly in their logarithm, then scaled so that
    least and greatest value stay. A channel of one value is left as it is.
    """

    def __init__(self, keys: KeysCollection, prob: float, points: int, steepness: float) -> None:
        super().__init__(keys, prob)
        self.points, self.steepness = points, steepness

    def restyled(self, image: torch.Tensor) -> torch.Tensor:
        slopes = self.steepness ** self.R.uniform(-1, 1, (len(image), self.points - 1))
        heights = np.cumsum(np.pad(slopes, ((0, 0), (1, 0))), axis=1)
        curves = torch.from_numpy(heights / heights[:, -1:]).to(image.device)
        values = image.flatten(1).double()  # in single precision rounding would exchange close neighbours
        low, high = torch.aminmax(values, dim=1, keepdim=True)
        extent = high - low
        places = (values - low) / extent.clamp_min(torch.finfo(extent.dtype).tiny) * (self.points - 1)
        knots = places.long().clamp_max(self.points - 2)
        mapped = torch.lerp(curves.gather(1, knots), curves.gather(1, knots + 1), places - knots)
        return (low + extent * mapped).to(image.dtype).view(image.shape)


class RandSmoothGaind(RandLookd):
    """Multiplies the signal by the exponential of a random polynomial, one for all channels, as a receiving coil does.

    Legendre polynomials over the patch up to a total `degree` (Van Leemput et al., IEEE TMI 1999), without the constant
    one; the logarithm of the gain is at most a size drawn from `strength`. Signal is counted from each channel's least
    value in the patch, which stays: prepared images are z-scored, so their zero is a mean, not an absence of signal.
    Where a patch holds no air its least value lies above the scanner's zero, and the field acts the more weakly.
    """

    def __init__(self, keys: KeysCollection, prob: float, degree: int, strength: tuple[float, float]) -> None:
        super().__init__(keys, prob)
        self.degree, self.strength = degree, strength

    def restyled(self, image: torch.Tensor) -> torch.Tensor:
        signal = image - image.amin(dim=tuple(range(1, image.ndim)), keepdim=True)
        return image + signal * torch.expm1(self._log_gain(image).to(image.dtype))

    def _log_gain(self, image: torch.Tensor) -> torch.Tensor:
        """`(*S)`; its greatest absolute value is the size drawn."""
        degrees = np.indices([self.degree + 1] * (image.ndim - 1)).sum(axis=0)
        wanted = (degrees > 0) & (degrees <= self.degree)
        field = torch.from_numpy(np.where(wanted, self.R.normal(size=degrees.shape), 0.0)).to(image.device)
        for extent in image.shape[1:]:  # one axis of degrees becomes one of voxels
            basis = np.polynomial.legendre.legvander(np.linspace(-1, 1, extent), self.degree)
            field = torch.tensordot(field, torch.from_numpy(basis).to(image.device), dims=([0], [1]))
        return field * (self.R.uniform(*self.strength) / field.abs().max())


class Layer(NamedTuple):
    """One convolution: weights `(O, I, *K)` and biases `(O,)`."""

    weights: np.ndarray
    biases: np.ndarray


class RandConvolutionsd(RandLookd):
    """Blends an image with what a shallow random network makes of it (GIN of Ouyang et al., IEEE TMI 2022).

    Convolutions with standard normal weights and biases, each of a width drawn from `kernels`, leaky rectifiers between
    them. Every channel passes through the same network on its own, so that none leaks into another. The network's
    output is brought to the channel's norm before it is blended, else its arbitrary size and not the share drawn from
    `blend` would decide, and so is the blend.
    """

    def __init__(
        self, keys: KeysCollection, prob: float, layers: int, kernels: Sequence[int], blend: tuple[float, float]
    ) -> None:
        super().__init__(keys, prob)
        self.layers, self.kernels, self.blend = layers, tuple(kernels), blend

    def restyled(self, image: torch.Tensor) -> torch.Tensor:
        share, network = self.R.uniform(*self.blend), self._network(image.ndim - 1)
        hidden = convolved(image[None], network[0])
        for layer in network[1:]:
            hidden = convolved(torch.nn.functional.leaky_relu(hidden, _LEAK), layer)
        return _with_norm_of(image, share * _with_norm_of(image, hidden[0]) + (1 - share) * image)

    def _network(self, dims: int) -> list[Layer]:
        widths = [1, *[_WIDTH] * (self.layers - 1), 1]
        kernels = [self.kernels[self.R.randint(len(self.kernels))] for _ in range(self.layers)]
        return [
            Layer(self.R.normal(size=(after, before, *[kernel] * dims)), self.R.normal(size=after))
            for (before, after), kernel in zip(pairwise(widths), kernels, strict=True)
        ]


def convolved(features: torch.Tensor, layer: Layer) -> torch.Tensor:
    """`(I, B, *S)` -> `(O, B, *S)` by odd kernels; border voxels are repeated, so that flat stays flat.

    A sum of shifted images: with so few channels torch's own convolution takes more than twice the time.
    """
    spatial, reach = features.shape[2:], [width // 2 for width in layer.weights.shape[2:]]
    margins = [side for width in reversed(reach) for side in (width, width)]
    padded = torch.nn.functional.pad(features, margins, mode="replicate") if any(reach) else features
    result = features.new_empty((len(layer.biases), *features.shape[1:]))
    for output, weights, bias in zip(result, layer.weights, layer.biases, strict=True):
        output.fill_(float(bias))
        for (channel, *start), weight in np.ndenumerate(weights):
            window = tuple(slice(first, first + extent) for first, extent in zip(start, spatial, strict=True))
            output.add_(padded[(channel, slice(None), *window)], alpha=float(weight))
    return result


def _with_norm_of(image: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """`other` scaled to the norm of `image`, channel by channel; what is zero everywhere stays so."""
    axes = tuple(range(1, image.ndim))
    wanted, have = (torch.linalg.vector_norm(x, dim=axes, keepdim=True) for x in (image, other))
    return other * (wanted / have).nan_to_num(nan=0.0, posinf=0.0)
