"""A training that is killed goes on with `medseg resume` as if nothing had happened."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.pipelines.phantom_study import write_experiment, write_phantoms

STEPS = 60
MEDSEG = [sys.executable, "-c", "from pipelines.command import main; main()"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four phantoms, their manifest, and a config that saves a checkpoint after every step."""
    folder = tmp_path_factory.mktemp("resume")
    write_phantoms(folder / "manifest", folder, folds=[0, 1, 0, 1])
    write_experiment(
        folder / "killed.yaml",
        data={"manifest": "manifest"},
        patch={"size": [16, 24, 16]},
        augmentation=[{"name": "affine"}, {"name": "noise"}],
        network={"channels": [8, 16], "dropout": 0.1},
        training={"total_steps": STEPS, "workers": 1, "checkpoint_minutes": 1e-9},
        tracking={"name": "none"},
    )
    return folder


def weights_of(run: Path) -> str:
    return str(json.loads((run / "model" / "model.json").read_text())["weights_sha256"])


def steps_done(runs: Path) -> int:
    """As the name of the newest checkpoint tells; 0 where there is none yet."""
    return max((int(path.name.split("-")[1]) for path in runs.glob("*/checkpoints/last-*.pt")), default=0)


@pytest.fixture(scope="module")
def whole(home: Path) -> str:
    """The weights of the run that nobody stopped."""
    command = [*MEDSEG, "train", "killed.yaml", "--data-root", ".", "--output", "whole"]
    subprocess.run(command, cwd=home, check=True, capture_output=True)
    return weights_of(next((home / "whole").iterdir()))


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_a_stopped_training_resumes_as_the_very_same_run(
    home: Path, whole: str, tmp_path: Path, how: signal.Signals
) -> None:
    command = [*MEDSEG, "train", "killed.yaml", "--data-root", ".", "--output", str(tmp_path / "runs")]
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(command, cwd=home, stdout=log, stderr=log)
    deadline = time.monotonic() + 120
    while running.poll() is None and time.monotonic() < deadline:
        if steps_done(tmp_path / "runs") >= 3:
            break
        time.sleep(0.01)
    running.send_signal(how)
    running.wait()
    assert 3 <= steps_done(tmp_path / "runs") < STEPS
    (run,) = (tmp_path / "runs").iterdir()
    assert not (run / "model").exists()
    if how != signal.SIGKILL:
        assert running.returncode == 130
        assert f"medseg resume {run}" in (tmp_path / "log").read_text()
    subprocess.run([*MEDSEG, "resume", str(run)], cwd=tmp_path, check=True, capture_output=True)  # from elsewhere
    assert weights_of(run) == whole
