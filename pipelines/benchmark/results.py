"""What a benchmark has done, one file a piece of work, each with the machine and the versions that it was done on."""

from __future__ import annotations

import csv
import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from medseg import __version__
from medseg.errors import MedsegError
from medseg.io.atomic import atomic_write_text

SCHEMA_VERSION = 2


@dataclass(frozen=True)
class Result:
    """What came of one piece of work: an answer, or the error that it ended with."""

    title: str
    answer: dict[str, Any] | None
    error: str | None
    seconds: float  # the whole process, scoring included
    machine: Mapping[str, Any]  # see `this_machine`

    @property
    def cases(self) -> dict[str, float | None]:
        """Foreground Dice of each scored case; empty for work without scores."""
        return dict((self.answer or {}).get("cases", {}))

    @property
    def failed_cases(self) -> list[str]:
        """The cases that could not be scored."""
        return list((self.answer or {}).get("failed", []))


def this_machine(device: str) -> dict[str, Any]:
    """What a measurement on a device, `cpu` or `cuda:1`, depends on beside its experiment."""
    import torch

    from medseg.devices import usable_cores
    from medseg.reproducibility import cpu

    facts = cpu()
    versions = {package: importlib.metadata.version(package) for package in ("torch", "monai")}
    return {
        "device": facts["model"] if device == "cpu" else torch.cuda.get_device_name(device),
        "cpu": facts["model"],
        "cores": facts["cores_allowed"],
        "threads": usable_cores(),
        **versions,
        "medseg": __version__,
    }


def one_machine(results: Sequence[Result]) -> Mapping[str, Any]:
    """The machine that all results come from. Raises MedsegError where there are several."""
    first = results[0].machine
    for result in results:
        if result.machine != first:
            raise MedsegError(
                f"{result.title} was measured on {described(result.machine)}, {results[0].title} on "
                f"{described(first)}; one table holds one machine: give another --output"
            )
    return first


def described(machine: Mapping[str, Any]) -> str:
    """A machine for people, in one line."""
    device = f"{machine['device']}, {machine['cores']} cores, {machine['threads']} threads"
    return ", ".join([device, *(f"{package} {machine[package]}" for package in ("torch", "monai", "medseg"))])


def read_result(path: Path) -> Result | None:
    """A result; None for one that is absent, damaged or of another schema."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema_version"] != SCHEMA_VERSION:
            return None
        return Result(*(content[key] for key in ("title", "answer", "error", "seconds", "machine")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_result(path: Path, result: Result, **facts: Any) -> None:
    """Writes a result, and what else is to be known of it. Raises WriteError."""
    content = {"schema_version": SCHEMA_VERSION, **facts, **asdict(result)}
    atomic_write_text(path, json.dumps(content, indent=2) + "\n")


def foreground_dice(scores: Path) -> dict[str, float | None]:
    """Each case's mean Dice over the labels that have one, from scores.csv; regions and failed cases left out."""
    found: dict[str, list[float]] = {}
    with scores.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["kind"] == "label":
                found.setdefault(row["case"], []).extend([float(row["dice"])] if row["dice"] else [])
    return {case: fmean(dice) if dice else None for case, dice in found.items()}
