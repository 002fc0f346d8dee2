"""Ways to make new patches out of two of a batch, by name."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from pydantic import Field

from medseg.config import Catalogue, NamedSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import torch

    ImagesAndLabels = tuple[torch.Tensor, list[tuple[torch.Tensor, float]]]


class Mixed(NamedTuple):
    """Images `(B, C, *S)`, labels `(B, 1 or S, *S)` with the share of the loss that each has, and the cases `(B)`."""

    images: torch.Tensor
    labels: list[tuple[torch.Tensor, float]]
    cases: torch.Tensor
    is_mixed: bool = False
    annotated: torch.Tensor | None = None  # bool (B, K), where some cases have labels that nobody looked for

    def pieces(self, count: int) -> Iterator[Mixed]:
        """At most `count` pieces along the batch, all but the last of one size."""
        size = -(-len(self.images) // count)
        for start in range(0, len(self.images), size):
            part = slice(start, start + size)
            labels = [(label[part], share) for label, share in self.labels]
            annotated = None if self.annotated is None else self.annotated[part]
            yield Mixed(self.images[part], labels, self.cases[part], self.is_mixed, annotated)


class MixConfig(NamedSettings):
    """Mixes each patch with the one before it in its batch, done with `probability` to a whole batch."""

    probability: float = Field(default=0.5, ge=0, le=1)

    def is_drawn(self, chance: np.random.Generator) -> bool:
        """Whether a batch is to be mixed."""
        return bool(chance.random() < self.probability)

    def __call__(self, batch: Mixed, chance: np.random.Generator) -> Mixed:
        """A batch that is not mixed yet, mixed; as it is where it holds one patch."""
        if len(batch.images) < 2:
            return batch
        mixed = self.mixed(batch.images, batch.labels[0][0], chance)
        return Mixed(*mixed, batch.cases, is_mixed=True)

    @abstractmethod
    def mixed(self, images: torch.Tensor, labels: torch.Tensor, chance: np.random.Generator) -> ImagesAndLabels:
        """The batch, mixed; its arguments stay as they are."""


class CutMix(MixConfig):
    """A box of the other patch, image and label, takes the place of its own (Yun et al., ICCV 2019).

    The box has a share of the volume that is drawn evenly between 0 and 1, and the patch's proportions.
    """

    name: Literal["cutmix"] = "cutmix"

    def mixed(self, images: torch.Tensor, labels: torch.Tensor, chance: np.random.Generator) -> ImagesAndLabels:
        size = images.shape[2:]
        edge = chance.random() ** (1 / len(size))
        lengths = [round(edge * full) for full in size]
        starts = [int(chance.integers(full - length + 1)) for full, length in zip(size, lengths, strict=True)]
        box: tuple[Any, ...] = (
            ...,
            *(slice(start, start + length) for start, length in zip(starts, lengths, strict=True)),
        )
        pasted, relabelled = images.clone(), labels.clone()
        pasted[box], relabelled[box] = images.roll(1, 0)[box], labels.roll(1, 0)[box]
        return pasted, [(relabelled, 1.0)]


class MixUp(MixConfig):
    """Weighted sums of two images; the loss is the sum of those against both labels (Zhang et al., ICLR 2018)."""

    name: Literal["mixup"] = "mixup"
    concentration: float = Field(
        default=0.2, gt=0
    )  # of the Beta distribution of the weight: small leaves one nearly whole

    def mixed(self, images: torch.Tensor, labels: torch.Tensor, chance: np.random.Generator) -> ImagesAndLabels:
        share = float(chance.beta(self.concentration, self.concentration))
        mixture = share * images + (1 - share) * images.roll(1, 0)
        return mixture, [(labels, share), (labels.roll(1, 0), 1 - share)]


MIXES = Catalogue[MixConfig]("mixes", MixConfig, [CutMix, MixUp])
