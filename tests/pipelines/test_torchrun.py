"""torchrun's processes train one network, write one run, and go on where they were when one of them is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from medseg.trained_model import load_model
from tests.pipelines.phantom_study import write_experiment, write_phantoms

STEPS = 30
REPOSITORY = Path(__file__).resolve().parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
TRAIN = ["pipelines.command", "train", "shared.yaml", "--data-root", ".", "--device", "cpu"]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four phantoms, their manifest, and a config that saves a checkpoint after every step."""
    folder = tmp_path_factory.mktemp("torchrun")
    write_phantoms(folder / "manifest", folder, folds=[0, 1, 0, 1])
    training = {"total_steps": STEPS, "checkpoint_steps": 1, "precision": "fp32", "threads": 1}
    write_experiment(
        folder / "shared.yaml",
        data={"manifest": "manifest"},
        patch={"size": [16, 24, 16]},
        augmentation=[{"name": "noise"}],
        network={"channels": [8, 16]},
        training={**training, "optimizer": {"name": "sgd"}},
    )
    return folder


def surroundings() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def weights(runs: Path) -> dict[str, torch.Tensor]:
    """Of the only run."""
    (run,) = (path for path in runs.iterdir() if (path / "run.json").is_file())
    return dict(load_model(run).weights)


@pytest.fixture(scope="module")
def shared(home: Path) -> dict[str, torch.Tensor]:
    """The weights of two processes that nobody stopped."""
    command = [*TORCHRUN, "-m", *TRAIN, "--output", "two", "--json"]
    done = subprocess.run(command, cwd=home, env=surroundings(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout)  # one answer, of the first process
    assert answer["steps"] == STEPS
    return weights(home / "two")


def test_two_processes_make_one_run_with_the_weights_of_one(home: Path, shared: dict[str, torch.Tensor]) -> None:
    command = [sys.executable, "-m", *TRAIN, "--output", "one"]
    subprocess.run(command, cwd=home, env=surroundings(), check=True, capture_output=True, timeout=600)
    single = weights(home / "one")
    assert all(torch.allclose(shared[name], value, atol=1e-4) for name, value in single.items())
    assert len(list((home / "two").glob("*/evaluation/summary.json"))) == 1


def test_a_killed_process_leads_to_a_restart_from_the_last_checkpoint(
    home: Path, shared: dict[str, torch.Tensor]
) -> None:
    command = [*TORCHRUN, "--max-restarts", "1", "-m", *TRAIN, "--output", "killed"]
    with (home / "killed.log").open("w") as log:
        running = subprocess.Popen(command, cwd=home, env=surroundings(), stdout=log, stderr=log)
    deadline = time.monotonic() + 300
    while _steps_done(home / "killed") < 3 and time.monotonic() < deadline:
        assert running.poll() is None, (home / "killed.log").read_text()[-3000:]
        time.sleep(0.01)
    for pid in _second_processes(running.pid):
        os.kill(pid, signal.SIGKILL)
    assert running.wait(timeout=600) == 0, (home / "killed.log").read_text()[-3000:]
    assert "goes on after step" in (home / "killed.log").read_text()
    again = weights(home / "killed")
    assert all(torch.equal(shared[name], value) for name, value in again.items())


def _steps_done(runs: Path) -> int:
    """As the name of the newest checkpoint tells."""
    return max((int(path.name.split("-")[1]) for path in runs.glob("*/checkpoints/last-*.pt")), default=0)


def _second_processes(parent: int) -> list[int]:
    """The processes of rank 1 that a torchrun started."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "status").read_text()
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if f"PPid:\t{parent}\n" in status and b"RANK=1" in environment:
            found.append(int(folder.name))
    return found
