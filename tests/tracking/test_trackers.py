"""Trackers: what is recorded can be read back, and a failing store costs records only."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from medseg.config import validate
from medseg.errors import ConfigError, TrackingError
from medseg.tracking import ForgivingTracker, MemoryTracker, NullTracker, Tracker, TrackingConfig, build_tracker, flat
from medseg.tracking.names import admissible, artifact_path

if TYPE_CHECKING:
    from mlflow import MlflowClient

DIGEST = "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def quiet_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One output folder, its store made once: MLflow's migrations take seconds."""
    return tmp_path_factory.mktemp("runs with space")


@pytest.fixture
def tracker(folder: Path) -> Tracker:
    tracker = build_tracker(TrackingConfig(), folder)
    tracker.start("run", {"purpose": "test"})
    return tracker


@pytest.fixture
def client(folder: Path) -> MlflowClient:
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=f"sqlite:///{folder}/mlflow.db")


def read(client: MlflowClient, tracker: Tracker, name: str, folder: Path) -> bytes:
    assert tracker.run_id is not None
    return Path(client.download_artifacts(tracker.run_id, name, str(folder))).read_bytes()


def test_default_store_lies_in_the_output_folder(tracker: Tracker, folder: Path) -> None:
    tracker.log_text("a: 1\n", "config.yaml")
    assert (folder / "mlflow.db").is_file()
    assert [path.read_text() for path in (folder / "mlartifacts").rglob("config.yaml")] == ["a: 1\n"]
    assert str(folder / "mlflow.db") in tracker.where


def test_building_writes_nothing(tmp_path: Path) -> None:
    build_tracker(TrackingConfig(), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_what_is_logged_is_read_back(tracker: Tracker, client: MlflowClient, tmp_path: Path) -> None:
    file, model = tmp_path / "scores.csv", tmp_path / "model"
    file.write_text("case,dice\n")
    (model / "deep").mkdir(parents=True)
    (model / "deep" / "weights").write_bytes(b"\0\1")
    tracker.log_params({"training.lr": 0.003, "patch": [1, 2]})
    tracker.log_metrics({"validation/dice": 0.5, "loss": 1.5}, step=3)
    tracker.log_metrics({"validation/dice": 0.75}, step=4)
    tracker.log_artifact(file, "scores/cases.csv")
    tracker.log_artifact(model, "model")
    tracker.log_picture(b"PNG", "worst/case_1.png")
    tracker.log_dataset("hippocampus", DIGEST)
    tracker.finish("finished")

    assert isinstance(tracker, ForgivingTracker)
    assert tracker.failures == []
    run = client.get_run(str(tracker.run_id))
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "run"
    assert run.data.tags["purpose"] == "test"
    assert run.data.params == {"training.lr": "0.003", "patch": "[1, 2]"}
    history = client.get_metric_history(str(tracker.run_id), "validation/dice")
    assert [(entry.step, entry.value) for entry in history] == [(3, 0.5), (4, 0.75)]
    assert read(client, tracker, "scores/cases.csv", tmp_path) == b"case,dice\n"
    assert read(client, tracker, "model/deep/weights", tmp_path) == b"\0\1"
    assert read(client, tracker, "pictures/worst/case_1.png", tmp_path) == b"PNG"
    assert run.inputs is not None
    dataset = run.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("hippocampus", DIGEST[:36])
    assert run.data.tags["manifest.training.digest"] == DIGEST


def test_long_parameter_is_kept_whole_as_an_artifact(tracker: Tracker, client: MlflowClient, tmp_path: Path) -> None:
    tracker.log_params({"cases": "x" * 6001})
    assert read(client, tracker, "params/cases.txt", tmp_path) == b"x" * 6001
    assert client.get_run(str(tracker.run_id)).data.params["cases"] == "6001 characters, in artifact params/cases.txt"


def test_more_parameters_and_metrics_than_one_request_takes(tracker: Tracker, client: MlflowClient) -> None:
    tracker.log_params({f"p{index}": index for index in range(250)})
    tracker.log_metrics({f"m{index}": float(index) for index in range(1100)}, step=0)
    data = client.get_run(str(tracker.run_id)).data
    assert (len(data.params), len(data.metrics)) == (250, 1100)


def test_figures_that_are_not_finite_are_recorded_as_nan(tracker: Tracker, client: MlflowClient) -> None:
    tracker.log_metrics({"a": math.nan, "b": math.inf, "c": -math.inf, "d": 1.0}, step=0)
    metrics = client.get_run(str(tracker.run_id)).data.metrics
    assert [math.isnan(metrics[name]) for name in "abcd"] == [True, True, True, False]


def test_names_of_labels_with_brackets_are_taken(tracker: Tracker, client: MlflowClient) -> None:
    tracker.log_metrics({"dice/GTV(p)": 0.5, "dice/GTV[p]": 0.25}, step=0)
    assert sorted(client.get_run(str(tracker.run_id)).data.metrics.values()) == [0.25, 0.5]


def test_a_run_is_opened_again_and_goes_on(tracker: Tracker, folder: Path, client: MlflowClient) -> None:
    tracker.log_params({"lr": 1})
    tracker.log_metrics({"loss": 2.0}, step=0)
    tracker.finish("killed")
    assert client.get_run(str(tracker.run_id)).info.status == "KILLED"
    again = build_tracker(TrackingConfig(), folder)
    again.start("run", {}, run_id=tracker.run_id)
    assert client.get_run(str(tracker.run_id)).info.status == "RUNNING"
    again.log_params({"lr": 1})
    again.log_metrics({"loss": 1.0}, step=1)
    again.finish("finished")
    assert isinstance(again, ForgivingTracker)
    assert again.failures == []
    assert [entry.value for entry in client.get_metric_history(str(tracker.run_id), "loss")] == [2.0, 1.0]


def test_unknown_run_is_refused_at_the_start(folder: Path) -> None:
    with pytest.raises(TrackingError, match="cannot be opened"):
        build_tracker(TrackingConfig(), folder).start("run", {}, run_id="0" * 32)


def test_store_that_cannot_be_made_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrackingError, match=r"cannot be opened.*tracking\.store"):
        build_tracker(TrackingConfig(), tmp_path / "file").start("run", {})


def test_dead_server_is_refused_within_seconds_and_without_its_password() -> None:
    tracker = build_tracker(TrackingConfig(store="http://user:secret@127.0.0.1:9"), Path())
    begin = time.monotonic()
    with pytest.raises(TrackingError, match=r"no MLflow server answers at http://127\.0\.0\.1:9 ") as caught:
        tracker.start("run", {})
    assert time.monotonic() - begin < 10
    assert "secret" not in str(caught.value)
    assert "secret" not in tracker.where


@pytest.mark.slow
def test_two_processes_may_open_a_new_store_together(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib; from medseg.tracking import *;"
        "t = build_tracker(TrackingConfig(), pathlib.Path(sys.argv[1])); t.start('run', {});"
        "t.log_metrics({'a': 1.0}, 0); t.finish('finished'); assert not t.failures, t.failures"
    )
    both = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path)]) for _ in range(2)]
    assert [one.wait(timeout=240) for one in both] == [0, 0]


class Dying(MemoryTracker):
    """A store that fails whenever `dead` is set."""

    dead = False
    calls = 0

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        self.calls += 1
        if self.dead:
            raise TrackingError("the store is gone; start it")
        super().log_metrics(metrics, step)


def test_failing_store_is_told_once_and_training_goes_on() -> None:
    warnings: list[str] = []
    inner = Dying()
    tracker = ForgivingTracker(inner, warnings.append)
    tracker.start("run", {})
    tracker.log_metrics({"a": 1.0}, 0)
    inner.dead = True
    tracker.log_metrics({"a": 2.0}, 1)
    inner.dead = False
    tracker.log_metrics({"a": 3.0}, 2)
    inner.dead = True
    for step in range(3, 10):
        tracker.log_metrics({"a": 4.0}, step)
    tracker.finish("finished")
    assert inner.metrics["a"] == [(0, 1.0), (2, 3.0)]
    assert inner.calls == 6  # three failures in a row and no more
    assert len(tracker.failures) == 8
    assert len(warnings) == 1
    assert "metrics of step 1" in warnings[0]
    assert inner.status == "finished"


def test_nothing_is_recorded_before_the_start(folder: Path) -> None:
    from medseg.tracking.mlflow_tracker import MlflowTracker

    with pytest.raises(TrackingError, match="call start"):
        MlflowTracker(TrackingConfig(), folder).log_metrics({"a": 1.0}, 0)


def test_name_none_builds_a_tracker_that_records_nothing(tmp_path: Path) -> None:
    tracker = build_tracker(TrackingConfig(name="none"), tmp_path)
    tracker.start("run", {})
    tracker.log_text("a", "b")
    tracker.finish("finished")
    assert isinstance(tracker, NullTracker)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("store", ["mlruns", "file:///tmp/mlruns", "/tmp/x.db", "ftp://host"])  # noqa: S108
def test_store_that_mlflow_would_refuse_later_is_refused_in_the_config(store: str) -> None:
    with pytest.raises(ConfigError, match=r"store: .*no MLflow store; write sqlite:///"):
        validate(TrackingConfig, {"store": store}, "config.yaml")


def test_memory_tracker_keeps_plain_values(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A")
    tracker = MemoryTracker()
    tracker.start("run", {"k": "v"})
    tracker.log_params({"lr": 1})
    tracker.log_artifact(tmp_path, "folder")
    tracker.log_picture(b"P", "p.png")
    tracker.log_dataset("d", DIGEST)
    tracker.finish("failed")
    assert tracker.artifacts == {"folder/a.txt": b"A", "pictures/p.png": b"P"}
    assert tracker.datasets == [("d", DIGEST, "training")]
    assert (tracker.status, tracker.tags, tracker.params) == ("failed", {"k": "v"}, {"lr": 1})
    with pytest.raises(TrackingError, match="lr"):
        tracker.log_params({"lr": 2})


def test_flat_settings() -> None:
    nested = {"a": {"b": 1, "c": {"d": None}}, "e": [1, 2], "f": {}}
    assert flat(nested) == {"a.b": 1, "a.c.d": None, "e": "[1, 2]", "f": "{}"}


def test_admissible_names_stay_apart() -> None:
    names = ["dice/left kidney", "a(b", "a)b", "ä", "a//b", "/a"]
    assert admissible(names[0]) == names[0]
    assert len({admissible(name) for name in names}) == len(names)


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x", "."])
def test_artifact_that_would_leave_the_run_is_refused(name: str) -> None:
    with pytest.raises(TrackingError, match="does not lie inside the run"):
        artifact_path(name)
