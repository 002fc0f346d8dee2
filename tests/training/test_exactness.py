"""A run that is stopped, or killed at any moment, ends with the weights of one that nobody disturbed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
# Every life of the run is a forked process of its own, since only a process can be killed.
PROGRAM = """
import os
import random
import signal
import sys
import time
import traceback
from pathlib import Path
import torch
from medseg.data.augmentation import Affine, Noise
from medseg.data.loaders import Patches, training_case
from medseg.data.patches import PatchSettings
from medseg.data.phantoms import PHANTOM_LABELS, phantom
from medseg.data.preprocessing import Preprocessing, prepare
from medseg.io import atomic
from medseg.losses import DiceCEConfig, build_loss
from medseg.networks import UNetConfig
from medseg.reproducibility import weights_digest
from medseg.training.loop import Training
from medseg.training.settings import TrainingSettings

torch.set_num_threads(1)
STEPS, home, chance = 70, Path(sys.argv[2]), random.Random(20)
cases = []
for number in range(5):
    image, label = phantom(number, (20, 24, 16))
    cases.append(training_case(f"p{number}", prepare(image, Preprocessing(), label), PHANTOM_LABELS))
patches = Patches(cases, PatchSettings(size=(16, 16, 16), smaller=((16, 8, 16),)), [Affine(), Noise()], seed=3)


class Watcher:
    def __init__(self, step, stop):
        self.step, self.stop = step, stop

    def stepped(self, step, total, values):
        self.step = step

    def validated(self, step, scores):
        pass

    def warned(self, message):
        raise AssertionError(message)

    def asks_to_stop(self):
        return self.step + 1 == self.stop  # asked during the step


def live(folder, workers=0, stop=None):
    # One life: from the newest checkpoint, or from the beginning, to the end, or to the step of a stop.
    plan = {
        "total_steps": STEPS, "batch_size": 2, "workers": workers, "checkpoint_steps": 1, "ema": 0.9, "hard_cases": 0.5,
        "mix": {"name": "cutmix"}, "schedule": {"name": "one_cycle"},
    }
    torch.manual_seed(0)
    network = UNetConfig(channels=(4, 8), dropout=0.2).build(1, 3)
    loss = build_loss(DiceCEConfig(), PHANTOM_LABELS)
    folder.mkdir(exist_ok=True)
    settings = TrainingSettings.model_validate(plan)
    run = Training(network, loss, PHANTOM_LABELS, patches, settings, torch.device("cpu"), folder)
    if list(folder.glob("last-*.pt")):
        run.restore()
    progress = run.run(STEPS, Watcher(run.progress.step, stop))
    assert progress.step == (stop or STEPS)
    (folder / f"weights-{progress.step}").write_text(weights_digest(run.chosen_weights()))


def born(*arguments, **settings):
    pid = os.fork()
    if pid:
        return pid
    try:
        live(*arguments, **settings)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def ended(pid):
    return os.waitpid(pid, 0)[1]


def result(folder):
    return (folder / f"weights-{STEPS}").read_text()


def undisturbed():
    for workers in range(3):
        assert ended(born(home / f"workers{workers}", workers)) == 0
        print(result(home / f"workers{workers}"))


def stopped():
    for step in [*sorted(chance.sample(range(1, STEPS), 20)), None]:
        assert ended(born(home / "stopped", stop=step)) == 0
    print(result(home / "stopped"))


def steps_done(folder):
    return max((int(path.name.split("-")[1]) for path in folder.glob("last-*.pt")), default=-1)


def killed():
    folder = home / "killed"
    for _ in range(20):
        until = steps_done(folder) + chance.randint(1, 3)
        pid = born(folder)
        while steps_done(folder) < until:
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.04))  # somewhere in the next steps and their checkpoints
        os.kill(pid, signal.SIGKILL)
        assert ended(pid) == signal.SIGKILL
    assert steps_done(folder) < STEPS
    assert ended(born(folder)) == 0
    print(result(folder))


def killed_while_writing():
    folder, die = home / "writing", lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    whole, moved = Path.write_bytes, os.replace

    def half(path, data):
        whole(path, data[: len(data) // 2])
        die()

    def after(*paths):
        moved(*paths)
        die()

    def the_third(write, fault):
        calls = iter((write, write))
        return lambda *arguments: next(calls, fault)(*arguments)

    faults = [(Path, "write_bytes", half), (atomic.os, "replace", die), (atomic.os, "replace", after)]
    for owner, name, fault in faults:
        before = steps_done(folder)
        usual = getattr(owner, name)
        setattr(owner, name, the_third(usual, fault))
        pid = born(folder)
        assert ended(pid) == signal.SIGKILL
        setattr(owner, name, usual)
        left = list(folder.glob(".*.pt"))
        assert bool(left) == (fault is not after), (name, left)
        assert steps_done(folder) > before
    assert ended(born(folder)) == 0
    assert not list(folder.glob(".*.pt"))
    print(result(folder))


globals()[sys.argv[1]]()
"""


def digests(what: str, home: Path) -> list[str]:
    """The final weights of the runs that the program makes."""
    command = [sys.executable, "-c", PROGRAM, what, str(home)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """With 0, 1 and 2 workers, which must be one and the same."""
    with_workers = digests("undisturbed", tmp_path_factory.mktemp("undisturbed"))
    assert len(with_workers) == 3
    assert len(set(with_workers)) == 1, "the number of workers matters"
    return with_workers[0]


@pytest.mark.parametrize(
    "how",
    [
        pytest.param("stopped", id="stopped at 20 random steps"),
        pytest.param("killed", id="killed at 20 random moments"),
        pytest.param("killed_while_writing", id="killed in the middle of a checkpoint, before and after its rename"),
    ],
)
def test_a_disturbed_run_ends_with_the_weights_of_an_undisturbed_one(
    undisturbed: str, how: str, tmp_path: Path
) -> None:
    assert digests(how, tmp_path) == [undisturbed]
