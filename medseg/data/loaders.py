"""Batches of patches whose content depends on (seed, epoch, position) alone: any number of workers gives the same."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from medseg.data.augmentation import AugmentationConfig
from medseg.data.laterality import Laterality
from medseg.data.patches import PatchSettings
from medseg.data.preprocessing import Prepared
from medseg.devices import threads
from medseg.labels import LabelSet
from medseg.reproducibility import seeded

_CHANCE = "chance"
_POSITIONS_KEPT = 10_000  # per label and case, enough to draw patches from


@dataclass(frozen=True, eq=False)
class TrainingCase:
    """A prepared case: image `(C, *S)` float32, label `(1 or S, *S)`, where each label lies, what pads the image."""

    case_id: str
    image: torch.Tensor
    label: torch.Tensor
    positions: list[np.ndarray]
    fill: float


def training_case(case_id: str, prepared: Prepared, labels: LabelSet) -> TrainingCase:
    """Keeps what drawing patches needs; the label must be there."""
    if prepared.label is None:
        raise ValueError(f"case {case_id} has no label")
    array = prepared.label if not labels.is_exclusive else prepared.label[0]
    positions = [_positions(labels.mask(array, name)) for name in labels.names]
    label = torch.from_numpy(prepared.label.astype(np.int32))
    image = torch.from_numpy(prepared.image)
    return TrainingCase(case_id, image, label, positions, float(image.min()))


def _positions(mask: np.ndarray) -> np.ndarray:
    """Indices `(N, dims)` of the voxels of one label, evenly thinned to a bounded number."""
    places = np.argwhere(mask)
    thinned = places[:: max(1, -(-len(places) // _POSITIONS_KEPT))]
    return thinned.astype(np.int32)


class Draw(NamedTuple):
    """One patch of the endless training stream: its epoch, its position there, its case, which size it has."""

    epoch: int
    position: int
    case: int
    size: int = 0


class Share(NamedTuple):
    """Which part of each batch a process draws: every so manyth, from its own number on."""

    number: int
    of: int


WHOLE = Share(0, 1)
Weights = Callable[[int], np.ndarray]  # epoch -> the share of its draws that each case gets


class DrawOrder:
    """The endless stream of draws, cut into the batches of some steps.

    Each epoch shows every case once, in an order that (seed, epoch) decides, or as often as `weights(epoch)` asks, one
    number a case that sum to 1. Step s holds draws s * batch_size and following, so that a batch may reach over the end
    of an epoch and nothing is left out. All of a step have one of `sizes` sizes, which (seed, step) decides.
    """

    def __init__(
        self,
        cases: int,
        batch_size: int,
        steps: range,
        seed: int,
        sizes: int = 1,
        weights: Weights | None = None,
        share: Share = WHOLE,
    ) -> None:
        self.cases, self.batch_size, self.steps, self.seed, self.sizes = cases, batch_size, steps, seed, sizes
        self.weights, self.share = weights, share

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[Draw]]:
        known: tuple[int, np.ndarray] = (-1, np.empty(0))
        for step in self.steps:
            batch, size = list[Draw](), seeded(self.seed, "size", step) % self.sizes
            for number in range(step * self.batch_size, (step + 1) * self.batch_size):
                epoch, position = divmod(number, self.cases)
                if epoch != known[0]:
                    known = epoch, self._order(epoch)
                batch.append(Draw(epoch, position, int(known[1][position]), size))
            yield batch[self.share.number :: self.share.of]

    def _order(self, epoch: int) -> np.ndarray:
        """The case of each draw of an epoch. By weights each comes as often as its share asks, rounded up or down."""
        chance = np.random.default_rng(seeded(self.seed, "order", epoch))
        shown = np.arange(self.cases)
        if self.weights is not None:
            marks = (chance.random() + np.arange(self.cases)) / self.cases
            ends = np.cumsum(self.weights(epoch))
            shown = np.minimum(np.searchsorted(ends / ends[-1], marks, side="right"), self.cases - 1)
        return chance.permutation(shown)


class Patches(Dataset[dict[str, Any]]):
    """Draw -> `{"image": (C, *S), "label": (1 or S, *S), "case": its number, "case_id": str}`, and `annotated`.

    With `changed_later` a patch comes as it was cut, and `changed` augments a batch of them, with the same draws of
    chance, on the device where it lies.
    """

    def __init__(
        self,
        cases: Sequence[TrainingCase],
        patch: PatchSettings,
        augmentation: Sequence[AugmentationConfig],
        seed: int,
        laterality: Laterality | None = None,
        changed_later: bool = False,
        annotated: torch.Tensor | None = None,  # bool (cases, K): what was looked for in each; None: everything
    ) -> None:
        from monai.transforms import Compose, Randomizable

        from medseg.data.monai_transforms import RandLabelCropd

        dims = len(patch.size)
        self.cases, self.patch, self.seed, self.laterality = cases, patch, seed, laterality
        self.changed_later, self.annotated = changed_later, annotated
        boxes = [patch.boxed(size) for size in patch.sizes]
        self.crops = [RandLabelCropd(["image", "label"], box, patch.foreground_share) for box in boxes]
        self.change = Compose([step for config in augmentation for step in config.build(dims)])
        self.chance = np.random.RandomState()  # of all steps, so that a patch needs to be seeded once
        for step in [*self.crops, *self.change.transforms]:
            if isinstance(step, Randomizable):
                step.set_random_state(state=self.chance)

    def __getitem__(self, draw: Draw) -> dict[str, Any]:
        from medseg.data.monai_transforms import FILL, POSITIONS

        case = self.cases[draw.case]
        with threads(1), plain_tensors():
            self.chance.seed(seeded(self.seed, "patch", draw.epoch, draw.position) % 2**32)
            patch: dict[Any, Any] = self.crops[draw.size](
                {"image": case.image, "label": case.label, POSITIONS: case.positions, FILL: case.fill}
            )
            if self.patch.slice_axis is not None:
                patch = {key: value.squeeze(self.patch.slice_axis + 1) for key, value in patch.items()}
            patch["label"] = patch["label"].float()
            if self.changed_later:
                patch[_CHANCE] = self._chance_now()
            else:
                patch = self._change(patch)
        known = {} if self.annotated is None else {"annotated": self.annotated[draw.case]}
        return {**patch, **known, "case": draw.case, "case_id": case.case_id}

    def changed(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """A batch of patches as they were cut, augmented where its tensors lie."""
        with threads(1), plain_tensors():
            patches = []
            for image, label, chance in zip(batch["image"], batch["label"], batch[_CHANCE], strict=True):
                twister = {"key": chance[:-1].numpy(), "pos": int(chance[-1])}
                self.chance.set_state({"bit_generator": "MT19937", "state": twister})
                patches.append(self._change({"image": image, "label": label}))
        both = {key: torch.stack([patch[key] for patch in patches]) for key in ("image", "label")}
        return {**{key: value for key, value in batch.items() if key != _CHANCE}, **both}

    def _change(self, patch: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        from medseg.data.monai_transforms import LATERALITY

        changed = self.change({**patch, LATERALITY: self.laterality})
        return {"image": changed["image"].float(), "label": changed["label"]}

    def _chance_now(self) -> torch.Tensor:
        """The state of chance once a patch is cut: 624 words of the Mersenne twister, and the place in them."""
        state: dict[str, Any] = self.chance.get_state(legacy=False)["state"]
        return torch.from_numpy(np.append(state["key"].astype(np.int64), state["pos"]))


@contextlib.contextmanager
def plain_tensors() -> Iterator[None]:
    """MONAI transforms on plain tensors inside the block: metadata costs many times the arithmetic."""
    from monai.data.meta_obj import get_track_meta, set_track_meta

    before = get_track_meta()
    set_track_meta(False)
    try:
        yield
    finally:
        set_track_meta(before)


def leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C reaches every process of a terminal; the parent alone decides when work ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def batches(
    patches: Patches,
    batch_size: int,
    steps: range,
    workers: int,
    weights: Weights | None = None,
    share: Share = WHOLE,
) -> DataLoader[dict[str, Any]]:
    """The batches of training steps `steps`, or a share of each, the same for any number of workers."""
    sizes = len(patches.patch.sizes)
    return DataLoader(
        patches,
        batch_sampler=DrawOrder(len(patches.cases), batch_size, steps, patches.seed, sizes, weights, share),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=leave_signals_to_the_parent,
        generator=torch.Generator(),  # its own, so that the network's random numbers stay untouched
    )
