"""SETR's config: a vision transformer alone sees the image, convolutions only bring its tokens back to the voxels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from medseg.networks.base import NetworkConfig, PerAxis, PositiveInt, per_axis

if TYPE_CHECKING:
    from torch import nn


class SETRConfig(NetworkConfig):
    """SETR-PUP (Zheng et al., CVPR 2021) in 2D and 3D: tokens of p voxels an axis, then doubled log2 p times.

    Unlike the paper, positions enter by sines and cosines (Vaswani et al., NeurIPS 2017), a share of the width an axis,
    in place of a learned table of one size, so that every size that p divides is taken; the decoder may have instance
    norm, and there are no auxiliary heads. The defaults are a ViT-Base (the paper's 'SETR-Base'; its large one has 24
    layers of width 1024 and 16 heads; in 3D, six equal shares need 1008).
    """

    name: Literal["setr"] = "setr"
    patch: PerAxis = 16  # voxels of a token; powers of 2
    hidden_size: PositiveInt = 768  # channels of a token
    mlp_size: PositiveInt = 3072
    layers: PositiveInt = 12
    heads: PositiveInt = 12
    decoder_width: PositiveInt = 256
    normalisation: Literal["instance", "batch", "group"] = "instance"  # of the decoder
    groups: PositiveInt = 8  # only with normalisation: group
    dropout: float = Field(0.0, ge=0, lt=1)  # in the transformer
    checkpointing: bool = False  # recompute transformer blocks in the backward pass: less memory, more time

    @model_validator(mode="after")
    def _consistent(self) -> SETRConfig:
        patch = per_axis(self.patch, self.spatial_dims)
        if len(patch) != self.spatial_dims:
            raise ValueError(f"patch: give one number, or {self.spatial_dims}")
        if max(patch) < 2 or any(size & (size - 1) for size in patch):
            raise ValueError(f"patch {list(patch)} must be powers of 2, not all 1: the decoder doubles the grid")
        if self.hidden_size % self.heads:
            raise ValueError(f"heads {self.heads} must divide hidden_size {self.hidden_size}")
        if self.hidden_size % (2 * self.spatial_dims):
            raise ValueError(
                f"hidden_size {self.hidden_size} must be a multiple of {2 * self.spatial_dims}: "
                "each axis has its sines and cosines"
            )
        if self.normalisation == "group" and self.decoder_width % self.groups:
            raise ValueError(
                f"decoder_width {self.decoder_width} cannot be split in {self.groups} groups; change either"
            )
        return self

    def divisor(self) -> tuple[int, ...]:
        return per_axis(self.patch, self.spatial_dims)

    def doublings(self) -> list[tuple[int, ...]]:
        """The factor of each stage of the decoder, per axis; an axis with smaller tokens joins in later."""
        powers = [size.bit_length() - 1 for size in self.divisor()]
        return [tuple(2 if stage >= max(powers) - power else 1 for power in powers) for stage in range(max(powers))]

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        from medseg.networks.shallow_convolution import guard_shallow_grids
        from medseg.networks.transformers.setr_module import SETR

        return guard_shallow_grids(SETR(self, in_channels, out_channels))
