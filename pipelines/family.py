"""A run whose parts are runs: their records lie below its own, and a folder holds one such family alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medseg.errors import ConfigError
from medseg.experiment import ExperimentConfig
from medseg.io.atomic import atomic_write_text
from medseg.tracking import RunStatus, Tracker, build_tracker
from pipelines.console import Console


@contextmanager
def family(
    home: Path, state: str, asked: Mapping[str, Any], experiment: ExperimentConfig, console: Console
) -> Iterator[tuple[ExperimentConfig, Tracker]]:
    """Opens the record of the whole; gives the experiment whose runs are recorded below it.

    `asked` says what the family is, and is kept in the file `state`: the same again goes on. Raises ConfigError where
    the folder holds another one.
    """
    path = home / state
    before: dict[str, Any] = {**asked, "tracker_run": None}
    if path.is_file():
        before = json.loads(path.read_text(encoding="utf-8"))
    if {key: before.get(key) for key in asked} != asked:
        kind = Path(state).stem.replace("_", "-")
        raise ConfigError(f"{home}: holds another {kind} (see {state}); give another --output")
    tracker = build_tracker(experiment.tracking, home.resolve(), console.say)
    tracker.start(home.name, {"family": Path(state).stem}, before["tracker_run"])
    atomic_write_text(path, json.dumps({**asked, "tracker_run": tracker.run_id}, indent=2) + "\n")
    status: RunStatus = "failed"
    store = experiment.tracking.store or f"sqlite:///{home.resolve()}/mlflow.db"
    below = {"parent": tracker.run_id, "store": store} if tracker.run_id else {}
    try:
        yield experiment.model_copy(update={"tracking": experiment.tracking.model_copy(update=below)}), tracker
        status = "finished"
    except KeyboardInterrupt:
        status = "killed"
        console.say("stopped; the same command goes on")
        raise
    finally:
        tracker.finish(status)
