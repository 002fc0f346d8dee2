"""Two processes that share a batch train the network that one process trains on all of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
from pathlib import Path
import torch
import yaml
from torch import distributed
from medseg.config import validate
from medseg.data.augmentation import Affine, Noise
from medseg.data.loaders import Patches, training_case
from medseg.data.patches import PatchSettings
from medseg.data.phantoms import PHANTOM_LABELS, phantom
from medseg.data.preprocessing import Preprocessing, prepare
from medseg.devices import World
from medseg.errors import ConfigError
from medseg.inference.predictor import Predictor
from medseg.losses import LOSSES, build_loss
from medseg.networks import UNetConfig
from medseg.training.loop import Training
from medseg.training.settings import TrainingSettings
from medseg.training.validation import Validation

torch.set_num_threads(1)
home, world = Path(sys.argv[1]), World()
if sys.argv[2] == "many":
    distributed.init_process_group("gloo")
    world = World(distributed.get_rank(), distributed.get_world_size())


class Heard:
    def __init__(self, stopper):
        self.losses, self.scores, self.stopper = [], [], stopper

    def stepped(self, step, total, values):
        self.losses.append(values["loss"])

    def validated(self, step, scores):
        self.scores.append(dict(scores))

    def warned(self, message):
        raise AssertionError(message)

    def asks_to_stop(self):
        return world.rank == self.stopper and len(self.losses) == 1


def read(number):
    image, label = phantom(number, (20, 24, 16))
    return f"p{number}", image, label


def told(name, case):
    labels = PHANTOM_LABELS.model_copy(update={"ignore": case["ignore"]})
    cases = []
    for number in range(6):
        _, image, label = read(number)
        if case["ignore"] is not None:
            label.array[: number * 3] = case["ignore"]  # unequal shares of the voxels count
        cases.append(training_case(f"p{number}", prepare(image, Preprocessing(), label), labels))
    patches = Patches(cases, PatchSettings(size=(16, 16, 16)), [Affine(), Noise()], seed=3)
    loss = build_loss(validate(LOSSES[case["loss"]["name"]], case["loss"], "loss"), labels)
    plan = {"total_steps": 4, "batch_size": 4, "workers": 0, "precision": "fp32", **case["training"]}
    torch.manual_seed(0)
    network = UNetConfig(**case["network"]).build(1, labels.channels)
    predictor = lambda network: Predictor(network, labels, Preprocessing(), patches.patch)
    validation = Validation([lambda n=n: read(n) for n in range(3)], predictor, PHANTOM_LABELS.names, world)
    folder = home / name
    folder.mkdir(exist_ok=True)
    settings = TrainingSettings.model_validate(plan)
    validates = validation if settings.validate_every_epochs else None
    run = Training(network, loss, labels, patches, settings, torch.device("cpu"), folder, validates, world)
    heard = Heard(case.get("stopper"))
    if case.get("timed"):  # as for a forecast
        run.validate(run.scored)
        run.time_a_step()
    if "clock" in case:  # says to one process alone that it is time for a checkpoint
        run._is_time_to_save = lambda seconds: world.rank == case["clock"] or world.size == 1
    progress = run.run(4, heard)
    if case.get("resumes"):
        torch.manual_seed(7)
        network = UNetConfig(**case["network"]).build(1, labels.channels)
        run = Training(network, loss, labels, patches, settings, torch.device("cpu"), folder, validates, world)
        world.wait()  # until the first process has written
        run.restore()
        heard.stopper = None
        progress = run.run(4, heard)
    difficulty = torch.from_numpy(run.stream.difficulty)
    facts = {"losses": heard.losses, "scores": heard.scores, "difficulty": difficulty, "step": progress.step}
    held = sum(getattr(one, "to_local", lambda one=one: one)().numel() for one in run.network.parameters())
    return {"weights": run.chosen_weights(), "held": held, **facts}


found = {}
for name, case in yaml.safe_load((home / "cases.yaml").read_text()).items():
    try:
        found[name] = told(name, case)
    except ConfigError as error:
        found[name] = {"error": str(error)}
if world.is_first:
    torch.save(found, home / "told.pt")
if world.size > 1:
    distributed.destroy_process_group()
"""
SGD = {"name": "sgd", "learning_rate": 0.05}
PLAIN: dict[str, Any] = {
    "network": {"channels": [4, 8, 16], "deep_supervision": 1},
    "loss": {"name": "dice_ce"},
    "ignore": None,
    "training": {"optimizer": SGD},
}
SHARDED: dict[str, Any] = {
    **PLAIN,
    "network": {"channels": [16, 64]},  # some blocks are worth sharing by themselves, some are not
    "training": {"optimizer": {**SGD, "momentum": 0.9}, "sharded": True, "validate_every_epochs": 1},
}
EQUAL: dict[str, dict[str, Any]] = {
    "dice_ce": PLAIN,
    "dice_ce_ignoring": {**PLAIN, "ignore": 9},
    "generalised_dice": {**PLAIN, "loss": {"name": "generalised_dice", "batch": True}, "ignore": 9},
    "sharded": SHARDED,
    "sharded_resumed": {**SHARDED, "resumes": True, "stopper": 1},
    "weighted_ce": {**PLAIN, "loss": {"name": "cross_entropy", "weights": [0.2, 1.0, 3.0]}, "ignore": 9},
}
CASES = {
    **EQUAL,
    "hard": {**PLAIN, "training": {"optimizer": SGD, "hard_cases": 0.5, "validate_every_epochs": 1}},
    "stopped": {**PLAIN, "stopper": 1},  # the second process is asked
    "sharded_timed": {**SHARDED, "timed": True},
    "sharded_saved": {**SHARDED, "clock": 1},
    "mixed": {
        **PLAIN,
        "loss": {"name": "generalised_dice", "batch": True},
        "training": {"optimizer": SGD, "hard_cases": 0.5, "mix": {"name": "mixup"}},
    },
    "odd": {**PLAIN, "training": {"optimizer": SGD, "batch_size": 3}},
}
pytestmark = pytest.mark.slow


def run(folder: Path, processes: int) -> dict[str, Any]:
    """What the trainings tell, each done by so many processes."""
    (folder / "program.py").write_text(PROGRAM)
    (folder / "cases.yaml").write_text(yaml.safe_dump(CASES))
    command = [sys.executable, str(folder / "program.py"), str(folder), "one"]
    if processes > 1:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [sys.executable, *launcher, *command[1:3], "many"]
    here = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=here, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(torch.load(folder / "told.pt", weights_only=True))


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(tmp_path_factory.mktemp("one"), 1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("two")


@pytest.fixture(scope="module")
def two(home: Path) -> dict[str, Any]:
    return run(home, 2)


@pytest.mark.parametrize("case", EQUAL)
def test_two_processes_train_as_one(one: dict[str, Any], two: dict[str, Any], case: str) -> None:
    moved = 0.0
    for name, weights in one[case]["weights"].items():
        assert torch.allclose(two[case]["weights"][name], weights, atol=2e-5), name
        moved = max(moved, float(weights.abs().max()))
    assert moved > 0
    assert two[case]["losses"] == pytest.approx(one[case]["losses"], abs=1e-4)


@pytest.mark.parametrize("case", ["hard", "sharded"])
def test_validations_are_those_of_all(one: dict[str, Any], two: dict[str, Any], case: str) -> None:
    assert len(one[case]["scores"]) == len(two[case]["scores"]) > 0
    for single, shared in zip(one[case]["scores"], two[case]["scores"], strict=True):
        assert shared == pytest.approx(single, abs=0.02)


def test_difficulties_are_those_of_all(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert torch.allclose(one["hard"]["difficulty"], two["hard"]["difficulty"], atol=1e-4, equal_nan=True)


def test_each_process_holds_its_share_of_the_weights_alone(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert two["sharded"]["held"] < 0.55 * one["sharded"]["held"]
    assert two["dice_ce"]["held"] == one["dice_ce"]["held"]


def test_sharded_weights_go_on_bit_for_bit_after_a_stop(two: dict[str, Any]) -> None:
    undisturbed = two["sharded"]["weights"]
    assert all(torch.equal(undisturbed[name], one) for name, one in two["sharded_resumed"]["weights"].items())


@pytest.mark.parametrize("case", ["sharded_timed", "sharded_saved"])
def test_a_forecast_and_one_process_clock_change_nothing(two: dict[str, Any], case: str) -> None:
    undisturbed = two["sharded"]["weights"]
    assert all(torch.equal(undisturbed[name], one) for name, one in two[case]["weights"].items())


def test_all_processes_mix_the_same_batches(two: dict[str, Any]) -> None:
    assert two["mixed"]["step"] == 4  # else they wait for one another, in losses over the batch and in difficulties


def test_all_stop_where_one_is_asked_to_and_the_first_alone_writes(two: dict[str, Any], home: Path) -> None:
    assert two["stopped"]["step"] == 2
    assert sorted(path.name[:13] for path in (home / "stopped").iterdir()) == ["last-00000000", "last-00000002"]


def test_a_batch_that_cannot_be_shared_is_refused(one: dict[str, Any], two: dict[str, Any]) -> None:
    assert two["odd"]["error"] == "training.batch_size 3 is no multiple of 2 processes; change it"
    assert "error" not in one["odd"]
