"""What training asks of any record of a run; the seam at which tests and other stores come in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

RunStatus = Literal["finished", "failed", "killed"]


class Tracker(Protocol):
    """One run's record. Arguments are plain data, so that each call is an event that could be kept and sent later.

    Names of metrics and artifacts are paths with `/`, for instance `validation/dice` and `scores/cases.csv`.
    Belongs to the process that started it: data loading workers do not call it.
    """

    @property
    def run_id(self) -> str | None:
        """The store's name for the run; None before the start, or where nothing is recorded."""

    @property
    def where(self) -> str:
        """One line that tells a person where to look at the record."""

    def start(self, run_name: str, tags: Mapping[str, str], run_id: str | None = None) -> None:
        """Opens a new run, or the one that `run_id` names. Raises TrackingError where the store cannot be used."""

    def log_params(self, params: Mapping[str, object]) -> None:
        """Settings worth comparing runs by; each is written once. The whole config belongs in an artifact."""

    def log_tags(self, tags: Mapping[str, str]) -> None:
        """Facts about the run that may change while it goes on."""

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """All figures of one step or epoch in one call."""

    def log_artifact(self, content: Path | bytes, name: str) -> None:
        """A file, a folder with all below it, or bytes, kept under `name`."""

    def log_text(self, text: str, name: str) -> None:
        """Text kept as the file `name`."""

    def log_picture(self, png: bytes, name: str) -> None:
        """A picture kept as `pictures/<name>`."""

    def log_dataset(self, name: str, digest: str, context: str = "training") -> None:
        """The identity of the manifest that the run read."""

    def finish(self, status: RunStatus) -> None:
        """Closes the run."""


class NullTracker:
    """Records nothing."""

    run_id: str | None = None
    where = "this run is not tracked (tracking.name is none)"

    def start(self, run_name: str, tags: Mapping[str, str], run_id: str | None = None) -> None:
        pass

    def log_params(self, params: Mapping[str, object]) -> None:
        pass

    def log_tags(self, tags: Mapping[str, str]) -> None:
        pass

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        pass

    def log_artifact(self, content: Path | bytes, name: str) -> None:
        pass

    def log_text(self, text: str, name: str) -> None:
        pass

    def log_picture(self, png: bytes, name: str) -> None:
        pass

    def log_dataset(self, name: str, digest: str, context: str = "training") -> None:
        pass

    def finish(self, status: RunStatus) -> None:
        pass
