"""The ways to turn gradients into steps, by name."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from medseg.config import Catalogue, NamedSettings
from medseg.errors import ConfigError

if TYPE_CHECKING:
    import torch


class OptimizerConfig(NamedSettings):
    """A way to turn gradients into steps."""

    learning_rate: float = Field(default=3e-3, gt=0)  # the highest; the schedule gives each step its share
    weight_decay: float = Field(default=1e-2, ge=0)

    @abstractmethod
    def build(self, parameters: Any) -> torch.optim.Optimizer:
        """The optimizer over the parameters."""


class AdamW(OptimizerConfig):
    """Adam with decoupled weight decay (Loshchilov and Hutter, ICLR 2019)."""

    name: Literal["adamw"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.999)

    def build(self, parameters: Any) -> torch.optim.Optimizer:
        import torch

        decay = self.weight_decay
        return torch.optim.AdamW(parameters, lr=self.learning_rate, betas=self.betas, weight_decay=decay)


class Adam(OptimizerConfig):
    """Adam (Kingma and Ba, ICLR 2015); weight decay enters the gradient."""

    name: Literal["adam"] = "adam"
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)

    def build(self, parameters: Any) -> torch.optim.Optimizer:
        import torch

        return torch.optim.Adam(parameters, lr=self.learning_rate, weight_decay=self.weight_decay)


class SGD(OptimizerConfig):
    """Stochastic gradient descent with Nesterov momentum, nnU-Net's choice."""

    name: Literal["sgd"] = "sgd"
    learning_rate: float = Field(default=1e-2, gt=0)
    weight_decay: float = Field(default=3e-5, ge=0)
    momentum: float = Field(default=0.99, ge=0, lt=1)

    def build(self, parameters: Any) -> torch.optim.Optimizer:
        import torch

        rate, decay, nesterov = self.learning_rate, self.weight_decay, self.momentum > 0
        return torch.optim.SGD(parameters, rate, self.momentum, weight_decay=decay, nesterov=nesterov)


class TorchOptimizer(OptimizerConfig):
    """Any other optimizer of torch.optim whose step needs the gradients alone; `options` are its keywords there."""

    name: Literal["torch"] = "torch"
    type: Literal["ASGD", "Adadelta", "Adafactor", "Adagrad", "Adamax", "NAdam", "RAdam", "RMSprop", "Rprop"]
    learning_rate: float = Field(default=1e-3, gt=0)
    weight_decay: float | None = Field(default=None, ge=0)  # type: ignore[assignment]  # null: torch's default
    options: Mapping[str, bool | int | float | tuple[float, ...] | None] = Field(default_factory=dict)

    def build(self, parameters: Any) -> torch.optim.Optimizer:
        """Raises ConfigError for options that torch refuses."""
        import torch

        given: dict[str, Any] = {"lr": self.learning_rate, **self.options}
        if self.weight_decay is not None:
            given["weight_decay"] = self.weight_decay
        try:
            built: torch.optim.Optimizer = getattr(torch.optim, self.type)(parameters, **given)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"training.optimizer: torch.optim.{self.type} refuses {given}: {error}") from error
        return built


OPTIMIZERS = Catalogue[OptimizerConfig]("optimizers", OptimizerConfig, [AdamW, Adam, SGD, TorchOptimizer])
