"""The list behind `medseg benchmark ablation`: settings that are added one after another to a base experiment."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from medseg.config import Settings, apply_assignments, read_yaml, validate
from medseg.errors import ConfigError
from medseg.experiment import ExperimentConfig
from medseg.trained_model import CHANGEABLE
from pipelines.locations import find_config

WEIGHTS = "WEIGHTS"  # in an assignment: the file given with --weights


class Rung(Settings):
    """One step of the ladder: assignments as `--set` takes them, on top of those of all rungs before."""

    label: str = Field(min_length=1)
    assignments: tuple[str, ...] = Field(alias="set", min_length=1)
    dims: tuple[Literal[2, 3], ...] = (2, 3)  # a rung may exist in one of them only
    needs_weights: bool = False  # left out where no file is given; its assignments may name it WEIGHTS

    @model_validator(mode="after")
    def _weights_are_asked_for(self) -> Rung:
        if not self.needs_weights and any(WEIGHTS in one for one in self.assignments):
            raise ValueError(
                f"rung {self.label!r} sets {WEIGHTS}, which is known with --weights alone; add needs_weights: true"
            )
        return self


class Ladder(Settings):
    """The rungs in order, and by number of axes the experiment that the first is set on."""

    schema_version: Literal[1] = 1
    bases: Mapping[Literal[2, 3], str]  # name or path
    rungs: tuple[Rung, ...] = Field(min_length=2)


@dataclass(frozen=True)
class Variant:
    """The whole experiment that a rung and those before it make."""

    label: str
    experiment: ExperimentConfig

    def only_uses(self, other: Variant) -> bool:
        """Whether this differs from another in how a trained model is used alone, so that its weights serve."""
        kept = set(CHANGEABLE) | {"name", "description"}
        return self.experiment.model_dump(exclude=kept) == other.experiment.model_dump(exclude=kept)

    def use(self) -> list[str]:
        """The assignments that tell `medseg evaluate` how the model is used."""
        content = self.experiment.model_dump(mode="json", include=set(CHANGEABLE))
        return [f"{part}={json.dumps(value)}" for part, value in content.items()]


def read_ladder(path: Path) -> Ladder:
    """A ladder. Raises ConfigError, naming key and value."""
    return validate(Ladder, read_yaml(path), str(path))


def variants(ladder: Ladder, dims: int, weights: Path | None, assignments: Sequence[str]) -> Iterator[Variant]:
    """Each rung's experiment, the assignments of the command line last; a rung without its weights file is left out.

    Raises ConfigError, naming the rung, for settings that do not fit.
    """
    if dims not in ladder.bases:
        raise ConfigError(f"--dims {dims}: the ladder has no base for it; choose {', '.join(map(str, ladder.bases))}")
    base, given = read_yaml(find_config(ladder.bases[dims])), list[str]()  # type: ignore[index]
    for number, rung in enumerate(ladder.rungs):
        if dims not in rung.dims or (rung.needs_weights and weights is None):
            continue
        given += [
            one.replace(WEIGHTS, json.dumps(str(weights.resolve())) if weights else "") for one in rung.assignments
        ]
        content = {**apply_assignments(base, [*given, *assignments]), "name": f"rung{number}_{dims}d"}
        yield Variant(rung.label, validate(ExperimentConfig, content, f"rung {rung.label!r}"))
