"""The optional extras of packages: what each brings, whether it is there, and the command that installs it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec

from medseg.errors import ConfigError


@dataclass(frozen=True)
class Extra:
    """What a package leaves out unless asked for it; each package says which of its own its networks need."""

    name: str
    modules: tuple[str, ...]  # that it brings, top-level ones
    command: str  # what a person types to get it

    def absent(self) -> list[str]:
        """Its modules that cannot be found; none is imported."""
        return [module for module in self.modules if not _is_found(module)]

    def is_installed(self) -> bool:
        """Whether every module of it can be found."""
        return not self.absent()

    def require(self, what: str) -> None:
        """Raises ConfigError with the command where `what` needs it and it is not installed."""
        absent = self.absent()
        if absent:
            raise ConfigError(f"{what} needs {', '.join(absent)}, not installed here; {self.command}")


ZOO = Extra("zoo", ("segmentation_models_pytorch", "timm", "torchvision"), "pip install 'medseg[zoo]'")


def _is_found(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # sys.modules holds None for it, which is how an import is forbidden
        return False
