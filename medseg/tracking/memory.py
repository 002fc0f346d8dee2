"""A tracker that keeps everything in memory, so that tests look at what was recorded instead of patching a store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from medseg.errors import TrackingError
from medseg.tracking.names import artifact_path
from medseg.tracking.tracker import RunStatus


class MemoryTracker:
    """Keeps params, tags, metrics `{name: [(step, value)]}`, artifacts `{name: bytes}` and datasets as plain values."""

    where = "this run is kept in memory only"

    def __init__(self) -> None:
        self.run_id: str | None = None
        self.run_name: str | None = None
        self.status: RunStatus | None = None
        self.params: dict[str, object] = {}
        self.tags: dict[str, str] = {}
        self.metrics: dict[str, list[tuple[int, float]]] = {}
        self.artifacts: dict[str, bytes] = {}
        self.datasets: list[tuple[str, str, str]] = []

    def start(self, run_name: str, tags: Mapping[str, str], run_id: str | None = None) -> None:
        self.run_id, self.run_name = run_id or f"memory-{run_name}", run_name
        self.tags |= tags

    def log_params(self, params: Mapping[str, object]) -> None:
        changed = [key for key, value in params.items() if key in self.params and self.params[key] != value]
        if changed:
            raise TrackingError(f"parameter {', '.join(changed)} was recorded with another value; start a new run")
        self.params |= params

    def log_tags(self, tags: Mapping[str, str]) -> None:
        self.tags |= tags

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        for name, value in metrics.items():
            self.metrics.setdefault(name, []).append((step, value))

    def log_artifact(self, content: Path | bytes, name: str) -> None:
        artifact_path(name)
        if isinstance(content, bytes):
            self.artifacts[name] = content
        elif content.is_dir():
            files = sorted(path for path in content.rglob("*") if path.is_file())
            self.artifacts |= {f"{name}/{path.relative_to(content).as_posix()}": path.read_bytes() for path in files}
        else:
            self.artifacts[name] = content.read_bytes()

    def log_text(self, text: str, name: str) -> None:
        self.log_artifact(text.encode(), name)

    def log_picture(self, png: bytes, name: str) -> None:
        self.log_artifact(png, f"pictures/{name}")

    def log_dataset(self, name: str, digest: str, context: str = "training") -> None:
        self.datasets.append((name, digest, context))

    def finish(self, status: RunStatus) -> None:
        self.status = status
