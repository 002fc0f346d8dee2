"""What share of its speed a training keeps with real data, beside the same steps on a batch that is always at hand."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping
from typing import Any

from medseg.errors import ConfigError
from medseg.training.loop import Training
from medseg.training.stream import Stream
from pipelines.benchmark.data.rounds import Comparison, in_rounds
from pipelines.console import Console

AT_LEAST = 0.9
_WARMUP_STEPS = 4  # and those whose batches are made before the first one is asked for
_ENDLESS = 1_000_000  # steps that no measurement reaches: a loader that runs dry leaves its last steps the machine


class OneBatch(Stream):
    """The first batch of a stream, again and again: cut and augmented once, no worker runs while a network trains."""

    def __init__(self, stream: Stream) -> None:
        (batch,) = stream.batches(range(1))
        patches = copy.copy(stream.patches)
        self.batch = patches.changed(batch) if patches.changed_later else batch
        patches.changed_later = False
        super().__init__(patches, stream.labels, stream.settings, stream.world)

    def batches(self, steps: range) -> Iterator[dict[str, Any]]:
        """The batch, once for each step."""
        for _ in steps:
            yield self.batch


class Stopwatch:
    """Observes a training for some steps, after others that only warm up, and asks it to stop."""

    def __init__(self, warmup: int, steps: int) -> None:
        self.warmup, self.steps = warmup, steps
        self.ends, self.losses = list[float](), list[float]()

    def stepped(self, step: int, total: int, values: Mapping[str, float]) -> None:
        self.ends.append(time.perf_counter())
        self.losses.append(values["loss"])

    def validated(self, step: int, scores: Mapping[str, float]) -> None:
        pass

    def warned(self, message: str) -> None:
        pass

    def asks_to_stop(self) -> bool:
        """Asked within a step, before it counts as done."""
        return len(self.ends) + 1 >= self.warmup + self.steps

    @property
    def steps_per_s(self) -> float:
        """Of the steps after the warm-up."""
        first = self.warmup - 1
        return self.steps / (self.ends[first + self.steps] - self.ends[first])


def training_rate(training: Training, steps: int, rounds: int, console: Console) -> Comparison:
    """Steps/s of the training's own loop on its own data, and on one batch of them that is repeated.

    Both sides run the very same loop, network, optimizer, batch size and precision, one after the other in one process;
    the weights go on from side to side. Real data come from the experiment's workers, of cases in the cache; the
    workers are stopped while the other side runs. The repeated batch is copied to the device in each step, too.
    """
    if training.settings.hard_cases is not None:
        raise ConfigError("training.hard_cases follows the steps of one stream, here there are two; --set it to null")
    training.validate = None  # whole volumes are no part of a step
    streams = {"real data": training.stream, "one repeated batch": OneBatch(training.stream)}
    sides = {name: lambda stream=stream: _rate(training, stream, steps) for name, stream in streams.items()}
    ours, theirs = in_rounds(console, "training steps", sides, rounds).values()
    return Comparison("training with real data", "steps/s", ours, "one repeated batch", theirs, AT_LEAST)


def train(training: Training, stream: Stream, watch: Stopwatch) -> Stopwatch:
    """Goes on with a training on a stream until the watch has seen enough."""
    training.patches, training.stream = stream.patches, stream  # patches know whether a step augments them
    training.run(training.progress.step + _ENDLESS, watch)
    return watch


def _rate(training: Training, stream: Stream, steps: int) -> float:
    return train(training, stream, Stopwatch(_WARMUP_STEPS + 2 * training.settings.workers, steps)).steps_per_s
