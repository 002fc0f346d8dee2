"""The plan of a training run: how long, how fast, how exact."""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from medseg.config import Catalogue, NamedSettings, Settings


class OptimizerConfig(NamedSettings):
    """A way to turn gradients into steps."""

    learning_rate: float = Field(default=3e-3, gt=0)
    weight_decay: float = Field(default=1e-2, ge=0)

    @abstractmethod
    def build(self, parameters: Any) -> Any:
        """A torch.optim.Optimizer over the parameters."""


class AdamW(OptimizerConfig):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    name: Literal["adamw"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)

    def build(self, parameters: Any) -> Any:
        import torch

        decay = self.weight_decay
        return torch.optim.AdamW(parameters, lr=self.learning_rate, betas=self.betas, weight_decay=decay)


class Adam(OptimizerConfig):
    """Adam (Kingma and Ba, 2015); weight decay enters the gradient."""

    name: Literal["adam"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)

    def build(self, parameters: Any) -> Any:
        import torch

        return torch.optim.Adam(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)


class SGD(OptimizerConfig):
    """Stochastic gradient descent with Nesterov momentum, nnU-Net's choice."""

    name: Literal["sgd"] = "sgd"
    learning_rate: float = Field(default=1e-2, gt=0)
    weight_decay: float = Field(default=3e-5, ge=0)
    momentum: float = Field(default=0.99, ge=0, lt=1)

    def build(self, parameters: Any) -> Any:
        import torch

        rate, decay, nesterov = self.learning_rate, self.weight_decay, self.momentum > 0
        return torch.optim.SGD(parameters, rate, self.momentum, weight_decay=decay, nesterov=nesterov)


OPTIMIZERS = Catalogue[OptimizerConfig]("optimizers", OptimizerConfig, [AdamW, Adam, SGD])


class ScheduleConfig(NamedSettings):
    """A factor on the learning rate that depends on the step alone, so that resuming needs no state."""

    @abstractmethod
    def factor(self, step: int, total: int) -> float:
        """Between 0 and 1, for step 0 to total - 1."""


class WarmupCosine(ScheduleConfig):
    """Rises linearly over a share of the run, then falls to zero along a cosine (Loshchilov and Hutter, 2017)."""

    name: Literal["warmup_cosine"] = "warmup_cosine"
    warmup: float = Field(default=0.1, ge=0, lt=1)

    def factor(self, step: int, total: int) -> float:
        rising = self.warmup * total
        if step < rising:
            return (step + 1) / (rising + 1)
        return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1.0, total - rising)))


class Polynomial(ScheduleConfig):
    """(1 - step / total) to a power (Chen et al., DeepLab, 2018)."""

    name: Literal["polynomial"] = "polynomial"
    power: float = Field(default=0.9, gt=0)

    def factor(self, step: int, total: int) -> float:
        return float((1 - step / total) ** self.power)


class Constant(ScheduleConfig):
    """The same rate throughout."""

    name: Literal["constant"] = "constant"

    def factor(self, step: int, total: int) -> float:
        return 1.0


SCHEDULES = Catalogue[ScheduleConfig]("schedules", ScheduleConfig, [WarmupCosine, Polynomial, Constant])


class TrainingSettings(Settings):
    """One training run. Give `total_steps`, or `max_minutes`, which a few timed steps turn into steps."""

    total_steps: int | None = Field(default=None, ge=1)
    max_minutes: float | None = Field(default=None, gt=0)  # from the start of the process to the last step
    batch_size: int = Field(default=4, ge=1)  # patches a step
    accumulate: int = Field(default=1, ge=1)  # pieces of a batch, where memory is short; a loss pools over each
    optimizer: Annotated[OptimizerConfig, OPTIMIZERS] = AdamW(name="adamw")
    schedule: Annotated[ScheduleConfig, SCHEDULES] = WarmupCosine(name="warmup_cosine")
    gradient_clip: float | None = Field(default=12.0, gt=0)  # L2 norm over all parameters
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    validate_every_epochs: int = Field(default=0, ge=0)  # 0: only when training has ended
    patience: int | None = Field(default=None, ge=1)  # validations without a better score before stopping early
    keep: Literal["last", "best"] = "last"  # the weights that become the model
    checkpoint_minutes: float = Field(default=5.0, gt=0)
    workers: int = Field(default=1, ge=0)  # processes that cut and augment patches
    threads: int | None = Field(default=None, ge=1)  # of the network on a CPU; null: one a core, recorded

    @model_validator(mode="after")
    def _one_length(self) -> TrainingSettings:
        if (self.total_steps is None) == (self.max_minutes is None):
            raise ValueError("give either total_steps or max_minutes, not both and not neither; set the other to null")
        if self.patience is not None and self.validate_every_epochs == 0:
            raise ValueError(
                f"patience {self.patience} counts validations, but validate_every_epochs is 0; set it above 0"
            )
        if self.keep == "best" and self.validate_every_epochs == 0:
            raise ValueError("keep 'best' needs validations; set validate_every_epochs above 0, or keep: last")
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate {self.accumulate} is more pieces than batch_size {self.batch_size} has patches"
            )
        return self
