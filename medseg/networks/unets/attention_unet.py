"""The Attention U-Net's config: MONAI's network, with its limits checked before it is built."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from medseg.networks.base import NetworkConfig, PerAxis, PositiveInt, per_axis

if TYPE_CHECKING:
    from torch import nn


class AttentionUNetConfig(NetworkConfig):
    """Attention U-Net (Oktay et al., MIDL 2018): a gate on every skip lets through what the coarser stage asks for.

    As MONAI builds it: strided convolutions with batch norm and ReLU, gates on the grid of their own stage, merging
    convolutions with instance norm and PReLU, dropout in the encoder and the merging convolutions but not in the gates
    and upsampling ones, torch's own initial weights. With batches of one or two, batch statistics are poor: rather take
    'unet' with instance norm there.
    """

    name: Literal["attention_unet"] = "attention_unet"
    channels: tuple[PositiveInt, ...] = Field((32, 64, 128, 256), min_length=2)  # one a stage, finest first
    strides: tuple[PerAxis, ...] | None = None  # from each stage to the next: one fewer than channels; default 2
    kernel_size: PerAxis = 3  # odd
    dropout: float = Field(0.0, ge=0, lt=1)

    @model_validator(mode="after")
    def _consistent(self) -> AttentionUNetConfig:
        count = len(self.channels) - 1
        if self.strides is not None and len(self.strides) != count:
            raise ValueError(f"strides has {len(self.strides)} entries, but {count + 1} channels need {count}")
        if any(len(entry) != self.spatial_dims for entry in [*self._steps(), self._kernel()]):
            raise ValueError(f"strides and kernel_size: give one number, or {self.spatial_dims}, for each entry")
        if any(size % 2 == 0 for size in self._kernel()):
            raise ValueError(f"kernel_size {list(self._kernel())} must be odd, so that a convolution keeps the grid")
        if min(self.channels[:-1]) < 2:
            raise ValueError("channels must be 2 or more but in the last stage: a gate works on half of them")
        return self

    def _steps(self) -> list[tuple[int, ...]]:
        return [per_axis(step, self.spatial_dims) for step in self.strides or (2,) * (len(self.channels) - 1)]

    def _kernel(self) -> tuple[int, ...]:
        return per_axis(self.kernel_size, self.spatial_dims)

    def divisor(self) -> tuple[int, ...]:
        return tuple(math.prod(steps) for steps in zip(*self._steps(), strict=True))

    def build(self, in_channels: int, out_channels: int) -> nn.Module:
        from monai.networks.nets.attentionunet import AttentionBlock, AttentionUnet

        from medseg.networks.attention.maps import AttentionMap
        from medseg.networks.shallow_convolution import guard_shallow_grids

        network = AttentionUnet(
            spatial_dims=self.spatial_dims,
            in_channels=in_channels,
            out_channels=out_channels,
            channels=self.channels,
            strides=self._steps(),  # type: ignore[arg-type]
            kernel_size=self._kernel(),
            up_kernel_size=self._kernel(),
            dropout=self.dropout,
        )
        gates = [module for module in network.modules() if isinstance(module, AttentionBlock)]  # finest first
        for stage, gate in enumerate(gates):
            gate.psi.append(AttentionMap(f"skip.{stage}.gate"))
        return guard_shallow_grids(network)
