"""A sweep tries settings, keeps what it found, goes on where it was stopped, and shares its storage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from medseg.config import validate
from medseg.errors import ConfigError
from medseg.experiment import read_experiment
from pipelines.sweep import SWEEP, _Watch, sweep
from pipelines.sweep_settings import SweepConfig
from tests.pipelines.phantom_study import write_experiment, write_phantoms

pytestmark = pytest.mark.skipif(not SWEEP.is_installed(), reason="needs the extra 'sweep'")
PARAMETERS = {
    "training.optimizer.learning_rate": {"low": 1e-6, "high": 1e-1, "log": True},
    "loss": {"choices": [{"name": "dice_ce"}, {"name": "cross_entropy"}]},
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four phantoms in two folds, their manifest, and an experiment."""
    folder = tmp_path_factory.mktemp("sweep")
    write_phantoms(folder / "manifest", folder, folds=[0, 0, 1, 1], shape=(18, 22, 16))
    write_experiment(folder / "tiny.yaml", training={"total_steps": 12})
    return folder


def written(home: Path, **changes: Any) -> str:
    content = {"name": "search", "base": str(home / "tiny.yaml"), "parameters": PARAMETERS, "trials": 2, **changes}
    path = home / f"{content['name']}.yaml"
    path.write_text(yaml.safe_dump(content))
    return str(path)


@pytest.mark.slow
def test_a_sweep_finds_the_best_and_goes_on(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = written(home, sampler="grid", parameters={"training.optimizer.learning_rate": {"choices": [1e-7, 0.02]}})
    found = sweep(config, home, home / "out", "cpu")
    assert found["best"]["settings"] == {"training.optimizer.learning_rate": 0.02}  # 1e-7 learns nothing
    assert [one["state"] for one in found["trials"]] == ["complete", "complete"]
    assert (home / "out" / "sweep.png").read_bytes().startswith(b"\x89PNG")
    best = read_experiment(home / "out" / "best.json")
    assert best.training.optimizer.learning_rate == 0.02
    scores = json.loads((Path(found["best"]["run"]) / "evaluation" / "summary.json").read_text())
    assert scores["foreground"]["metrics"]["dice"]["mean"] == found["best"]["value"]

    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{home / 'out'}/mlflow.db")
    parent = json.loads((home / "out" / "sweep.json").read_text())["tracker_run"]
    runs = client.search_runs([client.get_run(parent).info.experiment_id])
    assert sum(run.data.tags.get("mlflow.parentRunId") == parent for run in runs) == 2
    assert client.get_run(parent).data.metrics["best"] == found["best"]["value"]

    capsys.readouterr()
    assert sweep(config, home, home / "out", "cpu")["best"] == found["best"]
    assert "trial 2" not in capsys.readouterr().out  # nothing was left to do


def test_a_trial_that_falls_behind_is_asked_to_stop(tmp_path: Path) -> None:
    import optuna

    study = optuna.create_study(direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=1))
    good = study.ask()
    for step in (10, 20):
        good.report(0.8, step)
    study.tell(good, 0.8)
    run = tmp_path / "tiny-20260101-000000"
    run.mkdir()

    def told(prunes: bool, *scores: float) -> bool:
        lines = [json.dumps({"step": 10 * number, "score": score}) for number, score in enumerate(scores, start=1)]
        (run / "validations.jsonl").write_text("\n".join(lines) + "\n" if lines else "")
        return _Watch(study.ask(), tmp_path, prunes, lambda: False)()

    assert not told(True)
    assert not told(True, 0.9)
    assert told(True, 0.1, 0.2)
    assert not told(False, 0.1, 0.2)
    assert _Watch(study.ask(), tmp_path, False, lambda: True)()  # Ctrl-C


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": {"training.nope": {"low": 0, "high": 1}}}, "unknown key 'training.nope'"),
        ({"parameters": {"seed": {"low": 3, "high": 1}}}, "low 3 must be below high 1"),
        ({"parameters": {"seed": {"low": 0, "high": 5}}, "sampler": "grid"}, "seed has no step"),
        ({"pruning": True}, "pruning follows validations"),
        ({"set": ["data.fold=null"]}, "validates on no case"),
        ({"storage": "file.db"}, "storage"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_any_training(
    home: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        sweep(written(home, name="refused", **changes), home, tmp_path / "out", "cpu")
    assert not list(tmp_path.glob("out/*"))


def test_whole_numbers_stay_whole() -> None:
    content = {
        "name": "a",
        "base": "b",
        "parameters": {"x": {"low": 1, "high": 8, "log": True}, "y": {"low": 1.0, "high": 8}},
    }
    parameters = validate(SweepConfig, content, "sweep").parameters
    assert [parameters[key].is_whole for key in ("x", "y")] == [True, False]  # type: ignore[union-attr]
