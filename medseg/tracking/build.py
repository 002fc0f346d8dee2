"""The one place where tracking settings become a tracker, so that nothing else chooses between them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from medseg.tracking.config import TrackingConfig
from medseg.tracking.forgiving import ForgivingTracker
from medseg.tracking.tracker import NullTracker, Tracker


def build_tracker(config: TrackingConfig, folder: Path, warn: Callable[[str], None] | None = None) -> Tracker:
    """A tracker that outlives its store's failures; `folder` is the output folder of all runs, home of a local store.

    `warn` is told once when the store first fails after the start; None sends the message to the log.
    Nothing is written or asked before `start`, which raises TrackingError where the store cannot be used.
    """
    if config.name == "none":
        return NullTracker()
    from medseg.tracking.mlflow_tracker import MlflowTracker

    return ForgivingTracker(MlflowTracker(config, folder), warn)
