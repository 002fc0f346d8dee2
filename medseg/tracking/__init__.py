"""Records of training runs, so that every result can be traced to its settings, data and code."""

from medseg.tracking.build import build_tracker
from medseg.tracking.config import TrackingConfig
from medseg.tracking.forgiving import ForgivingTracker
from medseg.tracking.memory import MemoryTracker
from medseg.tracking.names import flat
from medseg.tracking.tracker import NullTracker, RunStatus, Tracker

__all__ = [
    "ForgivingTracker",
    "MemoryTracker",
    "NullTracker",
    "RunStatus",
    "Tracker",
    "TrackingConfig",
    "build_tracker",
    "flat",
]
