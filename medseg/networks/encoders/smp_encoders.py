"""Encoders of segmentation-models-pytorch and timm, and what it takes to make an obedient network of one."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch
from torch import nn

from medseg.errors import ConfigError
from medseg.networks.lenient_norm import forgive_single_values
from medseg.networks.shallow_convolution import guard_shallow_grids

TIMM = "tu-"  # the prefix of encoders that timm makes
_TRIED = 64  # pixels an axis, or more, of the first image that a network is tried on: stages that nobody reads run too
# What the libraries raise for an encoder that lacks features, cannot be dilated, or takes one size alone.
_REFUSALS = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


class EncoderDecoder(nn.Module):
    """Image `(B, C, H, W)` -> logits `(B, K, H, W)`; parameters are named as in segmentation-models-pytorch."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module, head: nn.Module, dropout: float) -> None:
        super().__init__()
        self.encoder, self.decoder, self.segmentation_head = encoder, decoder, head
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.segmentation_head(self.dropout(self.decoder(self.encoder(image))))
        return logits


def library() -> ModuleType:
    """The package segmentation_models_pytorch. Raises ConfigError where it is there but cannot be imported."""
    try:
        import segmentation_models_pytorch
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision made for another torch
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"segmentation-models-pytorch cannot be imported here ({first}); install torchvision and timm "
            "from where torch came from: pip install --force-reinstall 'medseg[zoo]'"
        ) from error
    module: ModuleType = segmentation_models_pytorch
    return module


def smp_network(
    architecture: str,
    encoder: str,
    channels: tuple[int, int],
    divisor: Sequence[int],
    dropout: float,
    **settings: Any,
) -> EncoderDecoder:
    """A model of segmentation-models-pytorch by the name of its class, for C input and K output channels.

    Raises ConfigError where the encoder is unknown or does not fit the architecture.
    """
    smp = library()
    check_encoder(encoder)
    what = f"{architecture} with encoder {encoder!r}"
    with _explained(what):
        model = getattr(smp, architecture)(
            encoder_name=encoder, encoder_weights=None, in_channels=channels[0], classes=channels[1], **settings
        )
    network = EncoderDecoder(model.encoder, model.decoder, model.segmentation_head, dropout)
    return finished(network, channels[0], divisor, what)


def make_encoder(name: str, in_channels: int, **settings: Any) -> Any:
    """An encoder with weights at random; `out_channels` tells its widths. Raises ConfigError for an unknown name."""
    smp = library()
    check_encoder(name)
    with _explained(f"encoder {name!r}"):
        return smp.encoders.get_encoder(name, in_channels=in_channels, weights=None, **settings)


def check_encoder(name: str) -> None:
    """Raises ConfigError, naming the nearest choice, for an encoder that neither library has."""
    import timm

    known = library().encoders.get_encoder_names()
    if name.startswith(TIMM):
        known = [TIMM + model for model in timm.list_models()]
        plain = name.partition(".")[0]  # a tag behind the point names weights, not another network
    else:
        plain = name
    if plain not in known:
        raise ConfigError(
            f"no encoder is called {name!r}{_nearest(plain, known)}; name one of segmentation-models-pytorch, "
            f"or one of timm as '{TIMM}<name>'"
        )


def finished(network: EncoderDecoder, in_channels: int, divisor: Sequence[int], what: str) -> EncoderDecoder:
    """The network without parts that no logit depends on, able to train on a batch of one.

    An encoder may bring stages deeper than its decoder reads, and even run them. They would cost time and room in every
    checkpoint, and get no gradient, which distributed training refuses. It is tried on the smallest size that the
    divisor admits too, so that an encoder which needs more is refused before any work.
    """
    image = _noise(in_channels, [step * -(-_TRIED // step) for step in divisor])
    smallest = _noise(in_channels, [2 * divisor[0], *divisor[1:]])
    network.eval()
    with _explained(f"{what}, for patches of any size,"):
        with torch.enable_grad():
            logits = network(image)
            logits.sum().backward()
        _skip_idle(network)
        with torch.no_grad():
            if not torch.allclose(network(image), logits):
                raise ValueError("a part of it that gets no gradient changes the logits")
            for tried in (image, smallest):
                have, want = list(network(tried).shape[2:]), list(tried.shape[2:])
                if have != want:
                    raise ValueError(f"its logits lie on a grid of {have} where the image has {want}")
    network.zero_grad(set_to_none=True)
    return forgive_single_values(guard_shallow_grids(network.train()))


def _noise(channels: int, size: Sequence[int]) -> torch.Tensor:
    """An image `(1, C, H, W)` to try a network on; the global generator is left alone."""
    return torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0))


class Skipped(nn.Module):
    """Stands where a part was whose result nobody reads."""

    def forward(self, features: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        return features


def _skip_idle(part: nn.Module) -> None:
    """Replaces each part below none of whose parameters got a gradient."""
    for name, child in part.named_children():
        gradients = [parameter.grad for parameter in child.parameters()]
        if gradients and all(gradient is None for gradient in gradients):
            setattr(part, name, Skipped())
        else:
            _skip_idle(child)


def _nearest(name: str, known: Sequence[str]) -> str:
    """The closest of more than a thousand names, as a question."""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turns what the libraries raise for settings that they do not support into a ConfigError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated names of encoders
            yield
    except torch.OutOfMemoryError:  # a RuntimeError, of the machine and not of the encoder
        raise
    except _REFUSALS as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(f"{what} cannot be built ({first}); choose another encoder") from error
