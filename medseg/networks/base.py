"""What every network's config answers, so that a size that a network cannot take is refused before any work."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self, get_args

from pydantic import Field

from medseg.config import NamedSettings
from medseg.errors import ConfigError
from medseg.extras import Extra

if TYPE_CHECKING:
    from torch import nn

PositiveInt = Annotated[int, Field(ge=1)]
PerAxis = PositiveInt | tuple[PositiveInt, ...]  # one number for all spatial axes, or one for each


class NetworkConfig(NamedSettings):
    """Base of the networks. A network maps images `(B, C, *S)` to logits `(B, K, *S)`.

    One with deep supervision returns, in train mode only, a list of logits: the finest `(B, K, *S)` first.
    Weights are drawn from torch's global generator and from nothing else: who builds a network seeds it first.
    """

    extras: ClassVar[Mapping[int, Extra]] = {}  # spatial dims -> the optional extra that they need
    compiles: ClassVar[bool] = True  # whether torch.compile takes it in one graph, backward pass included

    spatial_dims: Literal[2, 3] = 3

    @classmethod
    def dims(cls) -> tuple[int, ...]:
        """The numbers of spatial axes that the network exists in."""
        return get_args(cls.model_fields["spatial_dims"].annotation)

    def check_installed(self) -> None:
        """Raises ConfigError with the pip command where the network needs an extra that is not installed."""
        extra = self.extras.get(self.spatial_dims)
        if extra is not None:
            extra.require(f"network {self.name!r} in {self.spatial_dims}D")

    @abstractmethod
    def divisor(self) -> tuple[int, ...]:
        """What each spatial size must be a multiple of, one number an axis."""

    def sized(self, size: Sequence[int]) -> Self:
        """The config for patches of this size; another one only where the weights depend on the size."""
        return self

    @abstractmethod
    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        """The network for C input and K output channels."""

    def pinned(self) -> Self:
        """The config with the digest of each file that training begins from; itself where there is none."""
        return self

    def load_pretrained(self, network: nn.Module) -> None:
        """Puts weights from such a file into the network; only training does so, a trained model never needs it."""

    def check_size(self, size: Sequence[int], where: str) -> None:
        """Raises ConfigError, naming the nearest admissible sizes, where the network cannot take a patch of `size`.

        The coarsest stage must keep two voxels or more: of a single one no normalisation can take a variance.
        Asked of an experiment's patch size, it speaks for inference too: whoever slides a network over a volume gives
        it windows of that very size, and pads what is smaller.
        """
        self._check_axes(size, where)
        divisor, shown = self.divisor(), list(size)
        multiples = all(have > 0 and have % step == 0 for have, step in zip(size, divisor, strict=True))
        if multiples and tuple(size) != divisor:
            return
        unit = f"multiples of {divisor[0] if len(set(divisor)) == 1 else list(divisor)}"
        needs = f"more than {list(divisor)}, which leave a single voxel at its coarsest stage" if multiples else unit
        nearest = " or ".join(str(list(candidate)) for candidate in _nearest(size, divisor))
        raise ConfigError(f"{where} {shown} does not fit: network {self.name!r} needs {needs}; nearest: {nearest}")

    def fitted(self, size: Sequence[int]) -> tuple[int, ...]:
        """The smallest admissible size that holds `size`. Raises ConfigError where there is none."""
        self._check_axes(size, "size")
        return _nearest(size, self.divisor())[-1]

    def _check_axes(self, size: Sequence[int], where: str) -> None:
        if len(size) != self.spatial_dims:
            raise ConfigError(
                f"{where} {list(size)} has {len(size)} axes, but network {self.name!r} works in {self.spatial_dims}D; "
                f"give {self.spatial_dims} sizes, or set spatial_dims"
            )


def per_axis(value: int | tuple[int, ...], spatial_dims: int) -> tuple[int, ...]:
    """`value` for each spatial axis."""
    return (value,) * spatial_dims if isinstance(value, int) else value


def _nearest(size: Sequence[int], divisor: Sequence[int]) -> list[tuple[int, ...]]:
    """The admissible sizes next below and, last, next above, the same on axes that already fit."""
    pairs = list(zip(size, divisor, strict=True))
    below = tuple(max(have // step, 1) * step for have, step in pairs)
    above = tuple(max(-(-have // step), 1) * step for have, step in pairs)
    return list(dict.fromkeys(_grown(candidate, divisor) for candidate in (below, above)))


def _grown(candidate: tuple[int, ...], divisor: Sequence[int]) -> tuple[int, ...]:
    """`candidate`, or with its first size doubled where it is a single voxel of the coarsest stage."""
    return (2 * candidate[0], *candidate[1:]) if candidate == tuple(divisor) else candidate
