"""A tracker around another, so that a store that fails in the middle of a run costs records and not the training.

Each call passes through one method as a name and plain arguments: a durable journal of the run belongs exactly there,
written before the call is sent on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from medseg.errors import TrackingError
from medseg.tracking.tracker import RunStatus, Tracker

PATIENCE = 3  # failures in a row after which a store counts as dead: each may cost its whole timeout

_log = logging.getLogger(__name__)


class ForgivingTracker:
    """`start` raises TrackingError as the tracker inside does; afterwards failures are kept in `failures`.

    The first one is told to `warn` (None: to the log). After `PATIENCE` failures in a row nothing more is sent,
    except that `finish` is tried once. Calls from several threads are sent one after the other.
    """

    def __init__(self, tracker: Tracker, warn: Callable[[str], None] | None = None) -> None:
        self.failures: list[str] = []
        self._tracker = tracker
        self._warn = warn or _log.warning
        self._in_a_row = 0
        self._lock = threading.RLock()

    @property
    def run_id(self) -> str | None:
        return self._tracker.run_id

    @property
    def where(self) -> str:
        return self._tracker.where

    def start(self, run_name: str, tags: Mapping[str, str], run_id: str | None = None) -> None:
        self._tracker.start(run_name, tags, run_id)

    def log_params(self, params: Mapping[str, object]) -> None:
        self._send("parameters", lambda: self._tracker.log_params(params))

    def log_tags(self, tags: Mapping[str, str]) -> None:
        self._send("tags", lambda: self._tracker.log_tags(tags))

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self._send(f"metrics of step {step}", lambda: self._tracker.log_metrics(metrics, step))

    def log_artifact(self, content: Path | bytes, name: str) -> None:
        self._send(f"artifact {name}", lambda: self._tracker.log_artifact(content, name))

    def log_text(self, text: str, name: str) -> None:
        self._send(f"text {name}", lambda: self._tracker.log_text(text, name))

    def log_picture(self, png: bytes, name: str) -> None:
        self._send(f"picture {name}", lambda: self._tracker.log_picture(png, name))

    def log_dataset(self, name: str, digest: str, context: str = "training") -> None:
        self._send(f"data set {name}", lambda: self._tracker.log_dataset(name, digest, context))

    def finish(self, status: RunStatus) -> None:
        self._in_a_row = 0
        self._send(f"the end, {status}", lambda: self._tracker.finish(status))

    def _send(self, what: str, call: Callable[[], None]) -> None:
        with self._lock:
            if self._in_a_row >= PATIENCE:
                self.failures.append(f"{what}: not sent, the store failed {PATIENCE} times in a row")
                return
            try:
                call()
                self._in_a_row = 0
            except TrackingError as error:
                self._in_a_row += 1
                self.failures.append(f"{what}: {error}")
                if len(self.failures) == 1:
                    self._warn(f"the run's record has gaps, training goes on: {what}: {error}")
