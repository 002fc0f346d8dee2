"""The batches of a run, in which cases that are difficult, or have rare labels, may come more often than others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from medseg.data.loaders import Patches, Share, TrainingCase, batches
from medseg.devices import ALONE, World
from medseg.labels import LabelSet
from medseg.training.settings import TrainingSettings

_ROUND_STEPS = 25  # at least so many between two changes of the weights, each of which starts the workers anew


class Stream:
    """Batches for steps, evenly over the cases, or with shares of the draws by the rarity of labels and by difficulty.

    By rarity each label gets as many draws as any other, shared by the cases that have it. A case is as difficult as
    the soft Dice loss of its latest patches, a running mean that halves with each step. The weights of a round of whole
    epochs follow from the rounds before it, so that any number of workers draws the same; they and the difficulties are
    the state.
    """

    def __init__(self, patches: Patches, labels: LabelSet, settings: TrainingSettings, world: World = ALONE) -> None:
        self.patches, self.labels, self.settings, self.world = patches, labels, settings, world
        cases = len(patches.cases)
        self.difficulty = np.full(cases, np.nan)
        self.rarity = _rarity(patches.cases) if settings.rare_labels is not None else np.full(cases, 1 / cases)
        self.round_epochs = -(-_ROUND_STEPS * settings.batch_size // cases)
        self.weights: dict[int, np.ndarray] = {}  # of this round and the one before it, whose last draws may be left

    def batches(self, steps: range) -> Iterator[dict[str, Any]]:
        """The batches of these steps, which must follow those that were recorded."""
        size, workers, share = self.settings.batch_size, self.settings.workers, Share(self.world.rank, self.world.size)
        if self.settings.hard_cases is None:
            fixed = None if self.settings.rare_labels is None else lambda _: self._weights()
            yield from batches(self.patches, size, steps, workers, fixed, share)
            return
        start = steps.start
        while start < steps.stop:
            number = self._round_of(start)
            self.weights.setdefault(number, self._weights())
            self.weights = {one: of for one, of in self.weights.items() if one >= number - 1}
            end = min(self._first_step(number + 1), steps.stop)
            yield from batches(self.patches, size, range(start, end), workers, self._weights_of, share)
            start = end

    @torch.no_grad()
    def record(
        self,
        cases: torch.Tensor,
        logits_bks: torch.Tensor,
        label_b1s: torch.Tensor,
        annotated_bk: torch.Tensor | None = None,
    ) -> None:
        """Takes in how well patches `(B, K, *S)` of cases `(B)` were told, as to what was looked for in them."""
        labels = self.labels
        truth = labels.one_hot(label_b1s)[:, labels.foreground]
        told = labels.probabilities(logits_bks.float())[:, labels.foreground]
        counted = labels.counted(label_b1s)
        if counted is not None:
            told = told * counted
        axes = tuple(range(2, told.ndim))
        overlap, sizes = (told * truth).sum(axes), told.sum(axes) + truth.sum(axes)
        losses = (1 - (2 * overlap + 1) / (sizes + 1)).double()
        shown = torch.ones_like(losses) if annotated_bk is None else annotated_bk[:, labels.foreground].double()
        losses = (losses * shown).sum(dim=1) / shown.sum(dim=1).clamp_min(1)
        of_cases = torch.zeros(2, len(self.difficulty), dtype=torch.float64, device=losses.device)
        places = cases.to(losses.device)
        of_cases[0].index_add_(0, places, losses)
        of_cases[1].index_add_(0, places, torch.ones_like(losses))
        summed, counts = self.world.total(of_cases).cpu().numpy()
        seen = counts > 0
        latest = summed[seen] / counts[seen]
        before = self.difficulty[seen]
        self.difficulty[seen] = np.where(np.isnan(before), latest, (before + latest) / 2)

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors."""
        weights = {number: torch.from_numpy(weights) for number, weights in self.weights.items()}
        return {"difficulty": torch.from_numpy(self.difficulty.copy()), "weights": weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes up what `state_dict` gave."""
        self.difficulty = state["difficulty"].numpy().copy()
        self.weights = {number: weights.numpy() for number, weights in state["weights"].items()}

    def _weights(self) -> np.ndarray:
        """The share of the draws that each case gets: by rarity, by difficulty, the rest evenly."""
        rare, hard, cases = self.settings.rare_labels or 0.0, self.settings.hard_cases or 0.0, len(self.difficulty)
        known = ~np.isnan(self.difficulty)
        filled = np.where(known, self.difficulty, self.difficulty[known].mean() if known.any() else 1.0)
        total = filled.sum()
        by_difficulty = filled / total if total > 0 else np.full(cases, 1 / cases)
        return (1 - rare - hard) / cases + rare * self.rarity + hard * by_difficulty

    def _weights_of(self, epoch: int) -> np.ndarray:
        return self.weights[epoch // self.round_epochs]

    def _first_step(self, number: int) -> int:
        """The first step with a draw of a round."""
        return number * self.round_epochs * len(self.patches.cases) // self.settings.batch_size

    def _round_of(self, step: int) -> int:
        """The latest round that a step has draws of."""
        last_draw = (step + 1) * self.settings.batch_size - 1
        return last_draw // (len(self.patches.cases) * self.round_epochs)


def _rarity(cases: Sequence[TrainingCase]) -> np.ndarray:
    """The share of each case in draws that all labels get evenly; one without labels gets none."""
    has = np.array([[len(places) > 0 for places in case.positions] for case in cases], dtype=np.float64)
    counts = has.sum(axis=0)
    shares = (has[:, counts > 0] / counts[counts > 0]).sum(axis=1)
    total = shares.sum()
    return shares / total if total > 0 else np.full(len(cases), 1 / len(cases))
