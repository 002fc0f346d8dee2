"""What `medseg sweep` varies: any keys of an experiment, each in a range or among choices."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from medseg.config import Settings, read_yaml, validate

Number = int | float


class Span(Settings):
    """A number between two, both included: a whole one where both are, even on a log scale."""

    low: Number
    high: Number
    log: bool = False
    step: Number | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high or (self.log and self.low <= 0):
            raise ValueError(f"low {self.low} must be below high {self.high}, and above 0 where log is true")
        if self.log and self.step is not None:
            raise ValueError("log and step exclude each other; drop one")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether only integers are drawn."""
        return all(isinstance(one, int) for one in (self.low, self.high, self.step or 1))


class Choices(Settings):
    """One of several values of any kind, a whole mapping for instance."""

    choices: tuple[Any, ...] = Field(min_length=2)


class SweepConfig(Settings):
    """A search over the settings of one experiment."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)
    base: str  # an experiment, by name or path
    assignments: tuple[str, ...] = Field(default=(), alias="set")  # that all trials have in common
    parameters: Mapping[str, Span | Choices] = Field(min_length=1)  # dotted key -> what it may be
    trials: int = Field(default=20, ge=1)
    metric: str = "dice"  # of the validation cases, mean over labels: the higher, the better
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    seed: int = Field(default=0, ge=0)  # of the sampler; each trial is trained with the experiment's own
    pruning: bool = False  # stop a trial whose validations fall below the median; needs validate_every_epochs
    storage: Annotated[str, Field(pattern=r"^(sqlite|postgresql|mysql)(\+\w+)?://")] | None = None  # null: a file here

    @model_validator(mode="after")
    def _grid_is_finite(self) -> Self:
        endless = [key for key, one in self.parameters.items() if isinstance(one, Span) and one.step is None]
        if self.sampler == "grid" and endless:
            raise ValueError(f"sampler 'grid' tries all values, but {endless[0]} has no step; give one, or choices")
        return self


def read_sweep(path: Path) -> SweepConfig:
    """A sweep. Raises ConfigError, naming key and value."""
    return validate(SweepConfig, read_yaml(path), str(path))
