"""Runs recorded in MLflow, through its client alone: no active run, no autologging, no state of the process.

Parameters hold 6000 characters and a data set's digest 36 (MLflow 3 cuts or refuses the rest): a longer parameter is
kept as an artifact that the parameter names, a longer digest stands whole in a tag. How long MLflow waits for a dead
server is set by its environment variables, which are the programs' business; `start` asks the server itself first.
"""

from __future__ import annotations

import json
import math
import shlex
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from medseg.errors import TrackingError
from medseg.tracking.config import TrackingConfig
from medseg.tracking.names import admissible, artifact_path
from medseg.tracking.tracker import RunStatus

if TYPE_CHECKING:
    from mlflow import MlflowClient

VALUE_LIMIT = 6000  # characters of a parameter
TAG_LIMIT = 5000  # characters of a tag, the smallest limit of MLflow's stores
DIGEST_LIMIT = 36  # characters of a data set's digest
BATCH = 100  # parameters or tags of one request; metrics may be ten times as many
ANSWER_S = 5.0  # how long a server may take to say that it lives
STATUSES = {"finished": "FINISHED", "failed": "FAILED", "killed": "KILLED"}


class MlflowTracker:
    """A run in an MLflow store. Every method raises TrackingError where the store fails.

    The default store is `<folder>/mlflow.db`. The artifacts of a store without a server lie in `mlartifacts` beside the
    sqlite file, or in `<folder>` for another data base.
    """

    def __init__(self, config: TrackingConfig, folder: Path) -> None:
        self._experiment, self._parent = config.experiment, config.parent
        self._store = config.store or f"sqlite:///{folder.absolute().as_posix()}/mlflow.db"
        is_file = self._store.startswith("sqlite:///")
        self._folder = Path(self._store.removeprefix("sqlite:///")).absolute().parent if is_file else folder.absolute()
        self._client: MlflowClient | None = None
        self._run_id: str | None = None

    @property
    def run_id(self) -> str | None:
        return self._run_id

    @property
    def where(self) -> str:
        if self._store.startswith("http"):
            return f"{_redacted(self._store)} (experiment {self._experiment}, run {self._run_id})"
        return f"mlflow ui --backend-store-uri {shlex.quote(_redacted(self._store))}   (experiment {self._experiment})"

    def start(self, run_name: str, tags: Mapping[str, str], run_id: str | None = None) -> None:
        if self._store.startswith("http"):
            _ask(self._store)
        with self._refusals("cannot be opened"), self._alone():
            from mlflow import MlflowClient

            self._client = MlflowClient(tracking_uri=self._store)
            if run_id is None:
                run = self._client.create_run(self._experiment_id(self._client), run_name=run_name)
            else:
                run = self._client.get_run(run_id)
                self._client.update_run(run_id, status="RUNNING")
            self._run_id = run.info.run_id
        self.log_tags(tags if self._parent is None else {**tags, "mlflow.parentRunId": self._parent})

    def log_params(self, params: Mapping[str, object]) -> None:
        from mlflow.entities import Param

        named = {admissible(key): str(value) for key, value in params.items()}
        texts = {key: self._kept(value, f"params/{key}.txt", VALUE_LIMIT) for key, value in named.items()}
        client, run_id = self._started()
        with self._refusals("did not take the parameters"):
            for some in _batches([Param(key, value) for key, value in texts.items()]):
                client.log_batch(run_id, params=some, synchronous=True)

    def log_tags(self, tags: Mapping[str, str]) -> None:
        from mlflow.entities import RunTag

        named = {admissible(key): value for key, value in tags.items()}
        texts = {key: self._kept(value, f"tags/{key}.txt", TAG_LIMIT) for key, value in named.items()}
        client, run_id = self._started()
        with self._refusals("did not take the tags"):
            for some in _batches([RunTag(key, value) for key, value in texts.items()]):
                client.log_batch(run_id, tags=some, synchronous=True)

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """As the protocol says. An infinity is recorded as NaN: MLflow would turn it into 1.8e308, a figure."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        finite = {admissible(name): float(value) for name, value in metrics.items()}
        entries = [
            Metric(name, value if math.isfinite(value) else math.nan, now, step) for name, value in finite.items()
        ]
        client, run_id = self._started()
        with self._refusals("did not take the metrics"):
            for some in _batches(entries, 10 * BATCH):
                client.log_batch(run_id, metrics=some, synchronous=True)

    def log_artifact(self, content: Path | bytes, name: str) -> None:
        folder, file = artifact_path(name)
        client, run_id = self._started()
        with self._refusals(f"did not take {name}"):
            if isinstance(content, Path) and content.is_dir():
                client.log_artifacts(run_id, str(content), name)
            elif isinstance(content, Path) and content.name == file:
                client.log_artifact(run_id, str(content), folder or None)
            else:
                with tempfile.TemporaryDirectory() as scratch:
                    copy = Path(scratch) / file
                    copy.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
                    client.log_artifact(run_id, str(copy), folder or None)

    def log_text(self, text: str, name: str) -> None:
        self.log_artifact(text.encode(), name)

    def log_picture(self, png: bytes, name: str) -> None:
        self.log_artifact(png, f"pictures/{name}")

    def log_dataset(self, name: str, digest: str, context: str = "training") -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = json.dumps({"manifest": name, "digest": digest})
        dataset = Dataset(name=name, digest=digest[:DIGEST_LIMIT], source_type="manifest", source=source)
        client, run_id = self._started()
        with self._refusals("did not take the data set"):
            client.log_inputs(run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", context)])])
        self.log_tags({f"manifest.{context}.name": name, f"manifest.{context}.digest": digest})

    def finish(self, status: RunStatus) -> None:
        client, run_id = self._started()
        with self._refusals("did not close the run"):
            client.set_terminated(run_id, STATUSES[status])

    def _started(self) -> tuple[MlflowClient, str]:
        if self._client is None or self._run_id is None:
            raise TrackingError("the run was not started; call start before anything is recorded")
        return self._client, self._run_id

    def _kept(self, text: str, name: str, limit: int) -> str:
        """`text`, or where it is longer than the store allows, the name of the artifact that now holds it."""
        if len(text) <= limit:
            return text
        self.log_text(text, name)
        return f"{len(text)} characters, in artifact {name}"

    def _experiment_id(self, client: MlflowClient) -> str:
        found = client.get_experiment_by_name(self._experiment)
        if found is not None and found.lifecycle_stage != "active":
            raise TrackingError(
                f"experiment {self._experiment!r} was deleted from {_redacted(self._store)}; "
                "restore it with `mlflow experiments restore`, or set tracking.experiment to another name"
            )
        if found is not None:
            return str(found.experiment_id)
        artifacts = None if self._store.startswith(("http", "databricks")) else self._folder / "mlartifacts"
        return str(client.create_experiment(self._experiment, artifacts.as_uri() if artifacts else None))

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Holds back other processes while a local store is made: MLflow's first migrations do not bear company."""
        if not self._store.startswith("sqlite"):
            yield
            return
        from filelock import FileLock

        self._folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self._folder / ".mlflow.lock", timeout=120):
            yield

    @contextmanager
    def _refusals(self, what: str) -> Iterator[None]:
        """Turns every way in which MLflow reports a failing store into TrackingError."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        try:
            yield
        except (MlflowException, SQLAlchemyError, OSError) as error:
            reason = " ".join(str(error).split())[:300]
            raise TrackingError(
                f"MLflow store {_redacted(self._store)} {what}: {reason}; "
                "check tracking.store, or set tracking.name=none"
            ) from error


def _batches(entries: list, size: int = BATCH) -> Iterator[list]:
    return (entries[first : first + size] for first in range(0, len(entries), size))


def _redacted(store: str) -> str:
    """The store's address without user and password."""
    parts = urlsplit(store)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else store


def _ask(store: str) -> None:
    """Raises TrackingError where no server answers at all; MLflow alone would try again for minutes."""
    shown = _redacted(store).rstrip("/")
    try:
        with urllib.request.urlopen(f"{shown}/health", timeout=ANSWER_S):  # noqa: S310 - http or https, see above
            pass
    except urllib.error.HTTPError:
        return  # a server is there; what it thinks of the request is MLflow's to find out
    except OSError as error:
        raise TrackingError(
            f"no MLflow server answers at {shown} ({getattr(error, 'reason', error)}); "
            "start it, correct tracking.store, or leave it out for a local file"
        ) from error
