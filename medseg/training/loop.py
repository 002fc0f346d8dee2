"""The training loop: one function that reads from top to bottom, and the small parts that it is made of."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import nn

from medseg.data.loaders import Patches
from medseg.devices import ALONE, World, autocast, choose_precision, peak_memory_bytes
from medseg.errors import TrainingError, WriteError
from medseg.labels import LabelSet
from medseg.reproducibility import arithmetic, seeded
from medseg.training.budget import Needs
from medseg.training.checkpoint import Checkpoints, Progress
from medseg.training.mixing import Mixed
from medseg.training.moving_average import MovingAverage
from medseg.training.parts import advised, answered, check, check_together, lay_out, layout, size_bytes, together
from medseg.training.settings import TrainingSettings
from medseg.training.sharding import gathered, shared_like, shared_optimizer
from medseg.training.stream import Stream

_TIMED_STEPS = 12
_WARMUP_STEPS = 4


class Observer(Protocol):
    """Who wants to hear how training goes: a progress bar, a tracker, a test."""

    def stepped(self, step: int, total: int, values: Mapping[str, float]) -> None:
        """After each step: its number from 1, and loss, learning_rate, epoch."""

    def validated(self, step: int, scores: Mapping[str, float]) -> None:
        """After each validation: scores by name, 'score' among them."""

    def warned(self, message: str) -> None:
        """Something went wrong that does not end the run."""

    def asks_to_stop(self) -> bool:
        """Whether the run shall end after the step at hand, with a checkpoint."""


class Restored(NamedTuple):
    """What a run takes up: its length, and what its owner should know of it."""

    total_steps: int
    notes: list[str]


@dataclass
class Training:
    """One run: the parts that it trains and the place where it keeps its checkpoints."""

    network: nn.Module
    loss: nn.Module  # called with logits, label and the share of the steps that are done
    labels: LabelSet
    patches: Patches
    settings: TrainingSettings
    device: torch.device
    folder: Path
    validate: Callable[[nn.Module], Mapping[str, float]] | None = None  # higher 'score' is better
    world: World = ALONE

    def __post_init__(self) -> None:
        check(self.settings, self.world, self.patches)
        self.network.to(self.device)
        self.layout = layout(len(self.patches.patch.size), self.settings.channels_last)
        lay_out(self.network, self.layout)
        self.loss.to(self.device)
        self.dtype = choose_precision(self.settings.precision, self.device)
        is_sharded = self.settings.sharded and self.world.size > 1
        self.whole = copy.deepcopy(self.network) if is_sharded else self.network  # what is saved, scored and kept
        self.forward = together(
            self.network, self.world, self.device, compiled=self.settings.compile, sharded=is_sharded
        )
        self.optimizer = self.settings.optimizer.build(self.network.parameters())
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.average = self._new_average()
        self.stream = self._new_stream()
        self.last = Checkpoints(self.folder, "last", self.settings.checkpoints_kept)
        self.best = Checkpoints(self.folder, "best", 1)
        self.progress = Progress()

    def _new_stream(self) -> Stream:
        return Stream(self.patches, self.labels, self.settings, self.world)

    def _new_average(self) -> MovingAverage | None:
        return None if self.settings.ema is None else MovingAverage(self.network, self.settings.ema)

    @property
    def scored(self) -> nn.Module:
        """The network that is validated and becomes the model: the moving average, where there is one."""
        return self.whole if self.average is None else self.average.network

    def _gather(self) -> None:
        """Brings the whole network up to date with the shares of it that all processes hold."""
        if self.whole is not self.network:
            self.whole.load_state_dict(gathered(self.network.state_dict()))

    @property
    def seed(self) -> int:
        return self.patches.seed

    @property
    def steps_per_validation(self) -> int | None:
        """Steps between validations; None where they come only at the end."""
        epochs = self.settings.validate_every_epochs
        if not epochs or self.validate is None:
            return None
        return max(1, round(epochs * len(self.patches.cases) / self.settings.batch_size))

    @property
    def _is_out_of_patience(self) -> bool:
        return self.settings.patience is not None and self.progress.stale >= self.settings.patience

    def run(self, total_steps: int, observer: Observer) -> Progress:
        """Trains from where the run stands to `total_steps`, or until patience ends or the observer asks to stop."""
        self.network.train()
        if self.progress.step == 0:
            self.save(total_steps)  # so that a run stopped at any moment can be resumed
        saved_s = time.monotonic()
        remaining = range(self.progress.step, self.progress.step if self._is_out_of_patience else total_steps)
        for step, batch in zip(remaining, self.stream.batches(remaining), strict=True):
            values = self._step(step, total_steps, batch)
            self.progress = replace(self.progress, step=step + 1)
            is_due = self._is_time_to_save(time.monotonic() - saved_s)  # by the clock of any process
            told = torch.tensor([values["loss"], observer.asks_to_stop(), is_due], dtype=torch.float64)
            loss, asked, is_due = (self.world.total(told.to(self.device)) / self.world.size).tolist()
            observer.stepped(step + 1, total_steps, {**values, "loss": loss})
            if self.steps_per_validation and (step + 1) % self.steps_per_validation == 0:
                self._validate(observer)  # before a stop, too: the run that goes on will not come by here again
            if asked or self._is_out_of_patience:
                break
            if is_due:
                self._save_if_possible(total_steps, observer)
                saved_s = time.monotonic()
        self.save(total_steps)
        return self.progress

    def _is_time_to_save(self, seconds: float) -> bool:
        every = self.settings.checkpoint_steps
        is_due = every is not None and self.progress.step % every == 0
        return is_due or seconds > self.settings.checkpoint_minutes * 60

    def _save_if_possible(self, total_steps: int, observer: Observer) -> None:
        """A disk that is full now ends no run: the checkpoint before is whole, and the next one comes."""
        try:
            self.save(total_steps)
        except WriteError as error:
            observer.warned(f"no checkpoint at step {self.progress.step}: {error}; the run goes on")

    def _step(self, step: int, total_steps: int, batch: Mapping[str, Any]) -> dict[str, float]:
        """One optimizer step, a pure function of weights, optimizer state, seed, step and batch."""
        torch.manual_seed(seeded(self.seed, "network", step, self.world.rank))
        factor = self.settings.schedule.factor(step, total_steps, self.progress.scores)
        rate = self.settings.optimizer.learning_rate * factor
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for piece in self._pieces(step, batch):
            with advised(step, self.device):
                with autocast(self.device, self.dtype):
                    logits = answered(self.forward(piece.images), piece.annotated, self.labels)
                parts = [share * self.loss(logits, label, step / total_steps) for label, share in piece.labels]
                part = sum(parts[1:], parts[0]) * (len(piece.images) / len(batch["image"]))
                self.scaler.scale(part).backward()
            loss += float(part.detach())
            if self.settings.hard_cases is not None and not piece.is_mixed:
                finest = logits if isinstance(logits, torch.Tensor) else logits[0]
                self.stream.record(piece.cases, finest, piece.labels[0][0], piece.annotated)
        cases = ", ".join(batch["case_id"])
        if not loss < float("inf"):
            raise TrainingError(f"step {step + 1}: loss is {loss} on {cases}; check them, or lower the learning rate")
        self.scaler.unscale_(self.optimizer)
        limit = self.settings.gradient_clip or float("inf")
        norm = gathered(torch.nn.utils.clip_grad_norm_(self.network.parameters(), limit))
        if not self.scaler.is_enabled() and not bool(norm.isfinite()):  # with fp16 the scaler skips such a step
            raise TrainingError(f"step {step + 1}: the gradient is not finite on {cases}; lower the learning rate")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(self.network, step + 1)
        epoch = (step + 1) * self.settings.batch_size / len(self.patches.cases)
        return {"loss": loss, "learning_rate": rate, "epoch": epoch}

    def _pieces(self, step: int, batch: Mapping[str, Any]) -> Iterator[Mixed]:
        """The batch on the device, mixed as the settings say, in the pieces whose gradients are added up."""
        here = {key: batch[key].to(self.device, non_blocking=True) for key in ("image", "label")}
        if self.patches.changed_later:
            here = self.patches.changed({**batch, **here})
        annotated = batch["annotated"].to(self.device) if "annotated" in batch else None
        mixed = Mixed(here["image"], [(here["label"], 1.0)], batch["case"], annotated=annotated)
        mix = self.settings.mix
        if mix is not None and mix.is_drawn(np.random.default_rng(seeded(self.seed, "mix", step))):  # by all processes
            mixed = mix(mixed, np.random.default_rng(seeded(self.seed, "mixed", step, self.world.rank)))
        for piece in mixed.pieces(self.settings.accumulate):
            yield piece._replace(images=piece.images.contiguous(memory_format=self.layout))

    def _validate(self, observer: Observer) -> None:
        """Scores whole volumes and keeps the weights where they are the best so far."""
        if self.validate is None:
            return
        self._gather()
        scores = self.validate(self.scored)
        self.network.train()
        self.progress = self.progress.after(scores["score"])
        if self.progress.stale == 0 and self.world.is_first:
            self.best.save(self.progress.step, {"network": self.scored.state_dict()})
        observer.validated(self.progress.step, scores)

    def time_a_step(self) -> tuple[float, Needs]:
        """Seconds of a step here, data included, over a few steps whose effect is undone; and what they need.

        The median, or where patches differ in size the mean.
        """
        network = {key: value.clone() for key, value in self.network.state_dict().items()}
        scaler = self.scaler.state_dict()
        self.network.train()
        ends = [time.monotonic()]
        for step, batch in enumerate(self.stream.batches(range(_WARMUP_STEPS + _TIMED_STEPS))):
            self._step(step, _WARMUP_STEPS + _TIMED_STEPS, batch)
            ends.append(time.monotonic())
        needs = Needs(peak_memory_bytes(self.device), self._disk_bytes())
        self.network.load_state_dict(network)
        self.optimizer = self.settings.optimizer.build(self.network.parameters())
        self.average = self._new_average()
        self.stream = self._new_stream()
        self.scaler.load_state_dict(scaler)
        seconds = [end - start for start, end in pairwise(ends[_WARMUP_STEPS:])]
        return (fmean if self.patches.patch.smaller else median)(seconds), needs

    def _disk_bytes(self) -> int:
        """Of the checkpoints that are kept, the one that is being written, and the model."""
        weights = size_bytes(self.network.state_dict())
        whole = weights * (1 if self.average is None else 2) + size_bytes(self.optimizer.state_dict())
        best = weights if self.steps_per_validation else 0
        return whole * (self.settings.checkpoints_kept + 1) + best + weights

    def save(self, total_steps: int) -> None:
        """Has the first process write a checkpoint from which `restore` continues the very same run.

        Raises WriteError.
        """
        self._gather()
        optimizer = gathered(self.optimizer.state_dict(), self.world.is_first)
        if not self.world.is_first:
            return
        content = {
            "network": self.whole.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimizer": optimizer,
            "scaler": self.scaler.state_dict(),
            "stream": self.stream.state_dict(),
            "progress": asdict(self.progress),
            "total_steps": total_steps,
            "seed": self.seed,
            "arithmetic": arithmetic(self.device),
        }
        self.last.save(self.progress.step, content)

    def restore(self) -> Restored:
        """Takes up the run where its newest whole checkpoint left it. Raises TrainingError where there is none."""
        content, damaged = self.last.newest()
        if content.get("seed") != self.seed:
            raise TrainingError(f"{self.folder}: its checkpoints are of seed {content.get('seed')}, not {self.seed}")
        self.network.load_state_dict(shared_like(content["network"], self.network.state_dict()))
        if self.average is not None:
            self.average.load_state_dict(content["average"])
        weights = list(self.network.parameters())
        self.optimizer.load_state_dict(shared_optimizer(content["optimizer"], weights))
        self.scaler.load_state_dict(content["scaler"])
        self.stream.load_state_dict(content["stream"])
        progress = content["progress"]
        self.progress = Progress(**{**progress, "scores": tuple(progress["scores"])})
        check_together(self.progress.step, self.world, self.device, self.folder)
        now, then = arithmetic(self.device), content["arithmetic"]
        changed = [f"{name} {then.get(name)} -> {value}" for name, value in now.items() if then.get(name) != value]
        notes = [f"{path.name} is damaged; the checkpoint before it is used" for path in damaged]
        if changed:
            notes.append(f"{', '.join(changed)}: the same bits as without a stop are not promised")
        return Restored(int(content["total_steps"]), notes)

    def chosen_weights(self) -> dict[str, torch.Tensor]:
        """The weights that become the model: the last, or the best validated (the last, where none was validated)."""
        if self.settings.keep == "best" and self.progress.best_step is not None:
            return dict(self.best.newest().content["network"])
        return {key: value.detach().cpu().contiguous() for key, value in self.scored.state_dict().items()}
