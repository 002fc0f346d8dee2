"""The keys that name a 2D encoder and the weights that it begins from, shared by every network that has one."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field, model_validator

from medseg.errors import ConfigError
from medseg.extras import ZOO, Extra
from medseg.networks.base import NetworkConfig

if TYPE_CHECKING:
    from torch import nn

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class EncoderConfig(NetworkConfig):
    """Base of the networks that in 2D stand on an encoder of segmentation-models-pytorch, or of timm as `tu-<name>`.

    `weights` are what training begins from: null draws them at random; a path names a local file (safetensors, or a
    state dict of torch); anything else is a tag of the encoder's hub such as 'imagenet', which needs a connection. A
    file must fit every tensor of the encoder; a classifier in it is left out. A trained model never needs it again.
    A path is kept as it is given, a relative one from where the command runs, so that no home folder reaches a record;
    whoever repeats the run elsewhere is told by the digest whether the file there is the same.

    Weights made for RGB fit C channels thus: C = 1 takes the sum over R, G and B, so that a grey image gives what its
    RGB copy gave; another C takes R, G, B in turns, times 3 / C, so that activations keep their scale.
    """

    extras: ClassVar[Mapping[int, Extra]] = {2: ZOO}
    only: ClassVar[Mapping[int, tuple[str, ...]]] = {2: ("encoder", "weights", "weights_sha256")}  # dims -> keys

    encoder: str = "resnet34"
    weights: str | None = None
    weights_sha256: Digest | None = None  # what the file must have; a run writes down what it found

    @model_validator(mode="after")
    def _keys_belong(self) -> Self:
        # A key at its default passes, though it does nothing here: a config that was written down holds every key.
        for dims, keys in self.only.items():
            wrong = [key for key in keys if getattr(self, key) != type(self).model_fields[key].default]
            if dims != self.spatial_dims and wrong:
                made = {2: "segmentation-models-pytorch builds it", 3: "it is built here"}
                raise ValueError(
                    f"{wrong[0]} is a key of {self.name!r} in {dims}D alone, where {made[dims]}; drop it, "
                    f"or set spatial_dims: {dims}"
                )
        if self.weights_sha256 is not None and self.weights is None:
            raise ValueError("weights_sha256 is of a file that weights must name; name it, or drop weights_sha256")
        return self

    def pinned(self) -> Self:
        if self.weights is None or self.weights_sha256 is not None:
            return self
        from medseg.networks.encoders.encoder_weights import file_digest, weights_file

        return self.model_copy(update={"weights_sha256": file_digest(weights_file(self.encoder, self.weights))})

    def load_pretrained(self, network: nn.Module) -> None:
        if self.weights is None:
            return
        from medseg.networks.encoders.encoder_weights import load_encoder

        load_encoder(network.get_submodule("encoder"), self.encoder, self.weights, self.weights_sha256)


class BorrowedIn2DConfig(EncoderConfig):
    """Base of the networks that segmentation-models-pytorch builds in 2D and this package in 3D."""

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        build = self._build_2d if self.spatial_dims == 2 else self._build_3d
        return build(in_channels, out_channels)

    @abstractmethod
    def _build_2d(self, in_channels: int, out_channels: int) -> nn.Module:
        """The library's network."""

    @abstractmethod
    def _build_3d(self, in_channels: int, out_channels: int) -> nn.Module:
        """Our own."""

    def _check_is_built_here(self, asked: str) -> None:
        """Raises ConfigError in 2D, where another library's encoder decides what is asked."""
        if self.spatial_dims == 2:
            raise ConfigError(
                f"network {self.name!r} has a known {asked} in 3D alone; in 2D encoder {self.encoder!r} decides it"
            )
