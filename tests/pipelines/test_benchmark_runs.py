"""Benchmarks with real trainings in real processes, as a person starts them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from medseg.networks import UNetConfig
from pipelines.children import ChildError, medseg, surroundings
from tests.pipelines.phantom_study import write_phantoms

REPOSITORY = Path(__file__).resolve().parents[2]
MEDSEG = [sys.executable, "-c", "from pipelines.command import main; main()"]
FEW = ["--minutes", "0", "--steps", "2", "--best", "0"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four phantoms and their manifest, beside packages of somebody else with our names."""
    folder = tmp_path_factory.mktemp("benchmark")
    write_phantoms(folder / "manifest", folder, folds=[0, 1, 0, 1])
    (folder / "pipelines").mkdir()
    (folder / "pipelines" / "__init__.py").write_text("raise SystemExit('the decoy was imported')\n")
    return folder


def settings(home: Path, channels: str = "[4,8,8]") -> list[str]:
    chosen = [f"data.manifest={home / 'manifest'}", f"network.channels={channels}", "training.workers=0"]
    chosen += ["training.batch_size=2", "inference.window_batch=2"]
    return [*(part for one in chosen for part in ("--set", one)), "--data-root", str(home), "--device", "cpu"]


def never() -> bool:
    """Nobody asks to stop."""
    return False


def run(home: Path, *arguments: str) -> dict:
    here = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-P", *MEDSEG[1:], "benchmark", *arguments, "--json"]
    done = subprocess.run(command, cwd=home, env=here, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


@pytest.mark.slow
def test_networks_are_measured_and_trained_in_2d_and_3d(home: Path, tmp_path: Path) -> None:
    flags = [*FEW, *settings(home), "--output", str(tmp_path / "out")]
    result = run(home, "networks", "unet", *flags)
    rows = {(row["label"], row["dims"]): row for row in result["rows"]}
    assert set(rows) == {("unet", 3), ("unet", 2)}
    for row in rows.values():
        assert row["error"] is None
        assert row["parameters"] > 0
        assert row["gflops"] > 0
        assert row["training_seconds"] > 0
        assert row["inference_seconds"] > 0
        assert row["equal_steps_steps"] == 2
        assert 0 <= row["equal_steps_dice"] <= 1
        assert row["equal_steps_cases"] == 2
    network = UNetConfig(channels=(4, 8, 8)).build(1, 3)
    assert rows["unet", 3]["parameters"] == sum(weights.numel() for weights in network.parameters())
    assert rows["unet", 3]["training_peak_bytes"] > rows["unet", 3]["inference_peak_bytes"] > 0
    begin = time.monotonic()
    assert run(home, "networks", "unet", *flags)["rows"] == result["rows"]  # nothing is done twice
    assert time.monotonic() - begin < 30


@pytest.mark.slow
def test_a_run_of_a_benchmark_is_one_that_any_verb_takes(home: Path, tmp_path: Path) -> None:
    """The ladder's other uses are measured on the weights of the trained rungs."""
    flags = [*settings(home, "[4,8,8,8]"), "--steps", "2", "--seeds", "1", "--output", str(tmp_path / "out")]
    rows = run(home, "ablation", *flags)["rows"]
    assert [row["error"] for row in rows] == [None] * len(rows)
    assert [row["trained"] for row in rows][-2:] == [False, False]
    assert all(row["gain"] is not None for row in rows[1:])


@pytest.mark.slow
def test_ctrl_c_ends_the_training_and_keeps_what_is_done(home: Path, tmp_path: Path) -> None:
    endless = ["--minutes", "0", "--steps", "100000", "--best", "0", *settings(home)]
    command = [sys.executable, "-P", *MEDSEG[1:], "benchmark", "networks", "unet", "--dims", "3", *endless]
    here = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    with (tmp_path / "log").open("w") as log:
        running = subprocess.Popen(
            [*command, "--output", str(tmp_path / "out")], cwd=home, env=here, stdout=log, stderr=log
        )
    deadline = time.monotonic() + 180
    while not list((tmp_path / "out").glob("runs/*/*/checkpoints/last-*.pt")) and time.monotonic() < deadline:
        assert running.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    assert running.wait(timeout=60) == 130
    told = (tmp_path / "log").read_text()
    assert "stopped, trainings left: 1; the same command goes on" in told
    kept = sorted(path.name.split("-")[1] for path in (tmp_path / "out" / "results").glob("*.json"))
    assert kept == ["inference", "training"]
    assert "stopped after step" in next((tmp_path / "out" / "results").glob("*-train-*.log")).read_text()


def test_a_child_answers_or_fails_in_its_own_words(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)  # where a decoy lies
    assert "entries" in medseg(["list", "losses"], tmp_path / "log", never)
    assert "dice_ce" in (tmp_path / "log").read_text()
    with pytest.raises(ChildError, match="did you mean 'losses'"):
        medseg(["list", "lossez"], tmp_path / "log", never)


def test_a_child_that_the_system_ends_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "killed"
    script.write_text("#!/bin/sh\nkill -9 $$\n")
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    with pytest.raises(ChildError, match="signal 9, as the system does where memory runs out"):
        medseg(["list"], tmp_path / "log", never)


def test_a_child_that_has_succeeded_is_answered_for_though_someone_asked_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It answers, and ends when it is told to, as one does that has nothing left to do."""
    script = tmp_path / "done"
    script.write_text(
        '#!/bin/sh\ntrap "exit 0" TERM\necho \'{"steps": 3}\'\ntouch "$0.ready"\nwhile :; do sleep 0.1; done\n'
    )
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))
    ready = tmp_path / "done.ready"
    assert medseg(["train"], tmp_path / "log", ready.exists) == {"steps": 3}
    script.write_text(script.read_text().replace("exit 0", "exit 130"))
    with pytest.raises(KeyboardInterrupt):
        medseg(["train"], tmp_path / "log", ready.exists)


def test_only_a_checkout_is_put_on_the_path_of_a_child() -> None:
    assert surroundings({"PYTHONPATH": "mine", "HOME": "h"}, Path("/checkout")) == {
        "PYTHONPATH": f"/checkout{os.pathsep}mine",
        "HOME": "h",
    }
    assert surroundings({"HOME": "h"}, None) == {"HOME": "h"}
