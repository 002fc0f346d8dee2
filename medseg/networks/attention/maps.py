"""Where a network looks: the maps that its attention modules make on the way, taken out without touching them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn

from medseg.networks.layers import interpolated


class AttentionMap(nn.Identity):
    """Marks where a map passes: `(B, 1, *S)`, a weight for each place, or `(B, C, 1, ...)`, one for each channel.

    `title` tells place, stage (finest 0) and module: "skip.0.gate".
    """

    def __init__(self, title: str = "") -> None:
        super().__init__()
        self.title = title

    @property
    def is_recorded(self) -> bool:
        """Whether someone reads it; a map that costs more than its module asks for is made only then."""
        return bool(self._forward_hooks)


def markers(network: nn.Module) -> dict[str, AttentionMap]:
    """The network's maps by title, in the order of its modules; none where it has no attention."""
    return {module.title: module for module in network.modules() if isinstance(module, AttentionMap)}


@contextmanager
def recorded(network: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """A dictionary that, inside the block, holds the maps of the network's latest call by title, as they were made."""
    found: dict[str, torch.Tensor] = {}
    with ExitStack() as hooks:
        for title, marker in markers(network).items():

            def keep(_: nn.Module, __: object, made: torch.Tensor, title: str = title) -> None:
                found[title] = made.detach()

            handle = marker.register_forward_hook(keep)
            hooks.callback(handle.remove)
        yield found


def attention_maps(network: nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """The maps for an image `(B, C, *S)` by title, float32, in eval mode.

    Those over places are brought to the image's grid, `(B, 1, *S)`; those over channels have no place and stay
    `(B, C, 1, ...)`. In self-attention 1 is an even share of all queries' attention; elsewhere weights run from 0 to 1.
    """
    was_training = network.training
    network.eval()
    with torch.no_grad(), recorded(network) as found:
        network(image)
    network.train(was_training)
    size = tuple(image.shape[2:])
    return {
        title: one.float() if is_over_channels(one) else interpolated(one.float(), size) for title, one in found.items()
    }


def is_over_channels(made: torch.Tensor) -> bool:
    """Whether a map weighs channels, and no places."""
    return made.shape[2:].numel() == 1
