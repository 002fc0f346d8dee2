"""The plan of a training run: how long, how fast, how exact."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from medseg.config import Settings
from medseg.training.mixing import MIXES, MixConfig
from medseg.training.optimizers import OPTIMIZERS, AdamW, OptimizerConfig
from medseg.training.schedules import SCHEDULES, ScheduleConfig, WarmupCosine
from medseg.training.start import StartSettings


class TrainingSettings(Settings):
    """One training run. Give `total_steps`, or `max_minutes`, which a few timed steps turn into steps."""

    total_steps: int | None = Field(default=None, ge=1)
    max_minutes: float | None = Field(default=None, gt=0)  # from the start of the process to the last step
    start: StartSettings | None = None  # weights to begin from, in place of random ones
    batch_size: int = Field(default=4, ge=1)  # patches a step
    accumulate: int = Field(default=1, ge=1)  # pieces of a batch, where memory is short; a loss pools over each
    optimizer: Annotated[OptimizerConfig, OPTIMIZERS] = AdamW(name="adamw")
    schedule: Annotated[ScheduleConfig, SCHEDULES] = WarmupCosine(name="warmup_cosine")
    rare_labels: float | None = Field(default=None, gt=0, le=1)  # share of the draws that all labels get evenly
    hard_cases: float | None = Field(default=None, gt=0, le=1)  # share of the draws that go to cases by difficulty
    mix: Annotated[MixConfig, MIXES] | None = None
    gradient_clip: float | None = Field(default=12.0, gt=0)  # L2 norm over all parameters
    ema: float | None = Field(default=None, gt=0, lt=1)  # keep a moving average of the weights, and score and use it
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool = False  # memory layout of network and images
    compile: bool = False  # torch.compile: minutes first, faster steps after
    validate_every_epochs: int = Field(default=0, ge=0)  # 0: only when training has ended
    patience: int | None = Field(default=None, ge=1)  # validations without a better score before stopping early
    keep: Literal["last", "best"] = "last"  # the weights that become the model
    checkpoint_minutes: float = Field(default=5.0, gt=0)  # between two checkpoints, from which a run can go on
    checkpoint_steps: int | None = Field(default=None, ge=1)  # another one after every so many steps
    checkpoints_kept: int = Field(default=2, ge=1)  # the newest; a damaged one is passed over for the one before
    workers: int = Field(default=1, ge=0)  # processes that cut and augment patches
    augment_on: Literal["workers", "device"] = "workers"  # 'device': where the network is, for a GPU that waits
    threads: int | None = Field(default=None, ge=1)  # of the network on a CPU; null: one a core, recorded
    determinism: Literal["exact", "fast"] = "exact"  # on CUDA: kernels that repeat their bits; a CPU always has them
    sharded: bool = False  # with torchrun: each process holds a share of gradients and optimizer state

    @model_validator(mode="after")
    def _one_length(self) -> TrainingSettings:
        if (self.total_steps is None) == (self.max_minutes is None):
            raise ValueError("give either total_steps or max_minutes, not both and not neither; set the other to null")
        if self.patience is not None and self.validate_every_epochs == 0:
            raise ValueError(
                f"patience {self.patience} counts validations, but validate_every_epochs is 0; set it above 0"
            )
        if self.schedule.needs_validation and self.validate_every_epochs == 0:
            raise ValueError(
                f"schedule {self.schedule.name!r} follows validations, but validate_every_epochs is 0; set it above 0"
            )
        if self.keep == "best" and self.validate_every_epochs == 0:
            raise ValueError("keep 'best' needs validations; set validate_every_epochs above 0, or keep: last")
        if (self.rare_labels or 0.0) + (self.hard_cases or 0.0) > 1:
            raise ValueError(f"rare_labels {self.rare_labels} and hard_cases {self.hard_cases} are more than all draws")
        if self.sharded and self.ema is not None:
            raise ValueError(f"ema {self.ema} needs the whole weights at each step, which sharded spreads; drop one")
        if self.sharded and self.channels_last:
            raise ValueError("sharded spreads weights that lie contiguously; set channels_last to false")
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate {self.accumulate} is more pieces than batch_size {self.batch_size} has patches"
            )
        return self
