"""Measurements that are compared are taken in turn, round after round, so that noise of the machine hits all alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from pipelines.console import Console

Measure = Callable[[], float]


@dataclass(frozen=True)
class Comparison:
    """What was measured of medseg and of something beside it, a value each for every round, in the same unit."""

    measured: str
    unit: str
    ours: Sequence[float]
    beside: str
    theirs: Sequence[float]
    at_least: float | None = None  # the ratio that is aimed at

    @property
    def ratios(self) -> list[float]:
        """Ours over theirs, in each round."""
        return [one / other for one, other in zip(self.ours, self.theirs, strict=True)]

    @property
    def is_met(self) -> bool | None:
        """Whether the median ratio is what is aimed at; None where nothing is."""
        return None if self.at_least is None else median(self.ratios) >= self.at_least

    def content(self) -> dict[str, Any]:
        """Medians and extremes over the rounds, as flat values."""
        return {
            "measured": self.measured,
            "unit": self.unit,
            **_spread(self.ours, "medseg"),
            "beside": self.beside,
            **_spread(self.theirs, "other"),
            **_spread(self.ratios, "ratio"),
            "rounds": len(self.ours),
            "at_least": self.at_least,
            "met": self.is_met,
        }


def in_rounds(console: Console, description: str, sides: Mapping[str, Measure], rounds: int) -> dict[str, list[float]]:
    """What each side measured in every round; each round begins with the side after the one that began the last."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    with console.progress(rounds * len(names), description) as progress:
        for number in range(rounds):
            first = number % len(names)
            for name in [*names[first:], *names[:first]]:
                found[name].append(sides[name]())
                progress.advance(1, f"{name} {found[name][-1]:.3g}")
    return found


def _spread(values: Sequence[float], name: str) -> dict[str, float]:
    return {name: median(values), f"{name}_low": min(values), f"{name}_high": max(values)}
