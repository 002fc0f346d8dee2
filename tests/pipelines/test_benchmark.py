"""Benchmarks: what is done is kept, what fails is shown, and the numbers in the tables are those of the trainings."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from medseg.errors import ConfigError, MedsegError
from medseg.evaluation import bootstrap_interval
from medseg.networks import NETWORKS
from pipelines.benchmark import entries
from pipelines.benchmark.ablation import Climb, ablation
from pipelines.benchmark.agenda import Agenda
from pipelines.benchmark.children import ChildError
from pipelines.benchmark.contest import Plan
from pipelines.benchmark.entries import fitted, loss_entries, network_entries, read_losses
from pipelines.benchmark.ladder import climbed, read_ladder
from pipelines.benchmark.losses import losses
from pipelines.benchmark.networks import networks
from pipelines.benchmark.statistics import crossed_interval, difference_of, mean_of
from pipelines.benchmark.tables import interval, markdown
from pipelines.benchmark.work import Workshop, foreground_dice
from pipelines.console import Console
from pipelines.locations import find_benchmark, find_config, shipped_configs

COST = {
    "seconds": 0.25,
    "fastest_s": 0.2,
    "slowest_s": 0.3,
    "peak_bytes": 40_000_000,
    "batch": 4,
    "precision": "float32",
}
CASES = {"a": (0.8, 0.6), "b": (0.9, None), "c": (None, None)}  # Dice of two labels: means 0.7, 0.9 and none


class FakeMedseg:
    """Stands for the command: a training has the Dice that `dice` says of its network, plus 0.01 a seed."""

    def __init__(self, **dice: float) -> None:
        self.dice, self.calls, self.stop_at, self.broken = dice, list[list[str]](), -1, ""

    def __call__(self, arguments: Sequence[str], log: Path) -> dict[str, Any]:
        if len(self.trainings) == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append(list(arguments))
        if arguments[0] == "benchmark":
            return {**COST, "parameters": 1_234_567, "gflops": 7.89} if "inference" in arguments else COST
        if arguments[0] == "train":
            experiment = yaml.safe_load(Path(arguments[1]).read_text())
            name = (
                experiment["loss"]["name"] if experiment["loss"]["name"] in self.dice else experiment["network"]["name"]
            )
            if name == self.broken:
                raise ChildError("loss is nan on p1")
            run = Path(arguments[arguments.index("--output") + 1]) / "run"
            dice = self.dice[name] + 0.01 * experiment["seed"]
            steps = experiment["training"]["total_steps"] or 321
            return {"run": str(run), "steps": steps, "evaluation": scored(run / "evaluation", dice)}
        return scored(Path(arguments[arguments.index("--output") + 1]), 0.95)

    @property
    def trainings(self) -> list[list[str]]:
        return [call for call in self.calls if call[0] == "train"]


def scored(folder: Path, dice: float) -> dict[str, Any]:
    """An evaluation of two cases, 0.02 about a mean Dice, and one that failed."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        "case,label,kind,dice,failure",
        f"a,head,label,{dice - 0.02},",
        f"b,head,label,{dice + 0.02},",
        "c,,,,broken",
    ]
    (folder / "scores.csv").write_text("\n".join(rows) + "\n")
    return {"folder": str(folder), "mean_foreground_dice": dice, "cases": {"scored": 2, "failed": [{"case": "c"}]}}


PLAN = Plan(minutes=2, steps=100, best=1, best_minutes=10, best_seeds=3)
TWO = ["unet", "attention_unet"]


@pytest.fixture
def fake() -> FakeMedseg:
    return FakeMedseg(unet=0.8, attention_unet=0.85)


def workshop(folder: Path, fake: FakeMedseg) -> Workshop:
    return Workshop(folder / "out", folder / "data", "cpu", fake)


def lines(folder: Path) -> list[list[str]]:
    page = (folder / "out" / "benchmark.md").read_text()
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")
    ]


def test_the_table_holds_costs_and_dice_the_best_first(tmp_path: Path, fake: FakeMedseg) -> None:
    result = networks(workshop(tmp_path, fake), TWO, "3", [], Plan(best=0))
    rows = lines(tmp_path)
    assert [row[0] for row in rows[2:]] == ["attention_unet", "unet"]
    assert rows[3][1:6] == ["3D", "40 x 56 x 40", "1.23", "7.9", "0.250"]
    assert rows[3][8:] == ["40", "321", "0.800 [0.780, 0.820]", "0.800"]
    assert [row["label"] for row in result["rows"]] == ["attention_unet", "unet"]
    table = list(csv.DictReader(io.StringIO((tmp_path / "out" / "benchmark.csv").read_text())))
    assert float(table[1]["equal_minutes_dice"]) == pytest.approx(0.8)
    assert float(table[1]["training_slowest_s"]) == 0.3
    assert table[1]["equal_steps_steps"] == "100.0"
    head = (tmp_path / "out" / "benchmark.md").read_text().splitlines()[0]
    assert "torch" in head
    assert "hippocampus fold 1; seed 0" in head


def test_the_best_train_longer_under_several_seeds(tmp_path: Path, fake: FakeMedseg) -> None:
    result = networks(workshop(tmp_path, fake), TWO, "3", [], PLAN)
    assert [row["label"] for row in result["best"]] == ["attention_unet"]
    best = result["best"][0]
    assert best["equal_minutes_dice"] == pytest.approx(0.85 + 0.01)  # seeds 0, 1, 2
    assert best["equal_minutes_seeds"] == 3
    settings = [yaml.safe_load(Path(call[1]).read_text()) for call in fake.trainings]
    assert [(one["seed"], one["training"]["max_minutes"]) for one in settings[4:]] == [(0, 10.0), (1, 10.0), (2, 10.0)]
    assert {one["tracking"]["name"] for one in settings} == {"none"}


def test_a_stopped_benchmark_goes_on_where_it_was(
    tmp_path: Path, fake: FakeMedseg, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        networks(workshop(tmp_path, fake), TWO, "3", [], Plan(best=0))
    assert "stopped, trainings left: 1; the same command" in capsys.readouterr().out
    again = FakeMedseg(unet=0.1, attention_unet=0.85)  # what is done is not done anew
    result = networks(workshop(tmp_path, again), TWO, "3", [], Plan(best=0))
    assert len(again.calls) == len(again.trainings) == 1
    assert "3 of 4 trainings were done before" in capsys.readouterr().out
    assert {row["label"]: row["equal_minutes_dice"] for row in result["rows"]}["unet"] == pytest.approx(0.8)


def test_another_seed_or_budget_is_another_training(tmp_path: Path, fake: FakeMedseg) -> None:
    for assignments, plan in (([], Plan(best=0)), (["seed=7"], Plan(best=0)), ([], Plan(minutes=3, best=0))):
        networks(workshop(tmp_path, fake), ["unet"], "3", assignments, plan)
    assert len(fake.trainings) == 2 + 2 + 1


def test_one_that_fails_is_shown_and_stops_no_other(
    tmp_path: Path, fake: FakeMedseg, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.broken = "attention_unet"
    result = networks(workshop(tmp_path, fake), TWO, "3", [], Plan(best=0))
    assert [row["label"] for row in result["rows"]] == ["unet", "attention_unet"]
    assert lines(tmp_path)[-1][-2] == "failed: loss is nan on p1"
    assert "failed: loss is nan on p1" in capsys.readouterr().out
    fake.broken = ""
    result = networks(workshop(tmp_path, fake), TWO, "3", [], Plan(best=0))  # mended: tried again
    assert result["rows"][0]["equal_minutes_dice"] == pytest.approx(0.85)


def test_nothing_but_failures_is_an_error(tmp_path: Path, fake: FakeMedseg) -> None:
    fake.broken = "unet"
    with pytest.raises(MedsegError, match=r"every training failed.*loss is nan"):
        networks(workshop(tmp_path, fake), ["unet"], "3", [], Plan(best=0))
    assert (tmp_path / "out" / "benchmark.md").is_file()


def test_only_cost_trains_nothing(tmp_path: Path, fake: FakeMedseg) -> None:
    networks(workshop(tmp_path, fake), TWO, "3", [], Plan(only_cost=True))
    assert len(fake.calls) == 4
    assert fake.trainings == []
    assert lines(tmp_path)[-1][9:] == ["–", "–", "–"]


def test_a_network_without_its_extra_is_skipped_with_a_line_that_says_so(
    tmp_path: Path, fake: FakeMedseg, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(NETWORKS["attention_unet"], "extras", {3: "zoo"})
    monkeypatch.setitem(sys.modules, "timm", None)
    networks(workshop(tmp_path, fake), TWO, "3", [], Plan(best=0))
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped: attention_unet"))
    assert "pip install 'medseg[zoo]'" in said
    assert len(fake.trainings) == 2
    assert lines(tmp_path)[-1][-2].startswith("skipped: ")


def test_progress_names_the_place_and_the_time_left(
    tmp_path: Path, fake: FakeMedseg, capsys: pytest.CaptureFixture[str]
) -> None:
    networks(workshop(tmp_path, fake), TWO, "3", [], Plan(best=0))
    told = capsys.readouterr().out
    assert "cost 2/2: unet_3d, inference" in told
    # two of 2 minutes, two of 100 steps of 4 x 0.25 s, and half a minute around each
    assert "training 1/4: attention_unet_3d, 2 minutes, seed 0; about 9 min 20 s left" in told
    assert "training 4/4: unet_3d, 100 steps, seed 0; about 1 min 40 s left" in told  # what was around took no time


def own_and_borrowed(folder: Path) -> dict[str, Path]:
    """The shipped 2D config, and one made for other pictures whose network divides by 32."""
    wide = {
        "name": "lungs_wide",
        "data": {"manifest": "lungs"},
        "patch": {"size": [128, 128]},
        "network": {"name": "unet", "spatial_dims": 2, "channels": [8, 16, 16, 16, 16, 16]},
        "training": {"total_steps": 5, "batch_size": 3, "optimizer": {"name": "sgd", "learning_rate": 0.02}},
    }
    for name, content in (("lungs_wide", wide), ("lungs_unet", {**wide, "name": "lungs_unet"})):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    found = {"hippocampus_unet2d": find_config("hippocampus_unet2d")}
    return {**found, **{name: folder / f"{name}.yaml" for name in ("lungs_unet", "lungs_wide")}}


def test_a_2d_network_of_other_data_is_tried_slice_by_slice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = own_and_borrowed(tmp_path)
    monkeypatch.setattr(entries, "shipped_configs", lambda: shipped)
    own, wide = network_entries([], (2,), [])
    assert (own.label, wide.label) == ("unet", "wide")
    assert own.experiment is not None
    assert wide.experiment is not None
    assert own.experiment.network.model_dump()["channels"] == (
        32,
        64,
        128,
        256,
    )  # the config made for these data counts
    assert wide.experiment.patch.size == (64, 64)  # 40 x 56, rounded up to 32 along each axis
    assert wide.experiment.patch.slice_axis == own.experiment.patch.slice_axis == 2
    assert wide.experiment.data == own.experiment.data
    assert wide.experiment.training.optimizer.name == "sgd"
    assert wide.experiment.training.batch_size == own.experiment.training.batch_size


def test_shipped_networks_join_by_themselves() -> None:
    names = {entry.label for entry in network_entries([], (3,), [])}
    assert {"unet", "attention_unet", "swin_unetr"} <= names
    assert [entry.label for entry in network_entries(["unet"], (2,), [])] == ["unet"]


def test_a_name_that_no_config_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'unet'"):
        network_entries(["unett"], (2, 3), [])


def test_settings_that_fit_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"nothing to compare.*batch_size"):
        network_entries(["unet"], (2, 3), ["training.batch_size=0"])


@pytest.mark.parametrize(("size", "expected"), [((40, 56), [40, 56]), ((9, 8), [16, 8]), ((5, 3), [16, 8])])
def test_a_patch_is_rounded_up_to_what_the_network_takes(size: tuple[int, int], expected: list[int]) -> None:
    network = NETWORKS["unet"].model_validate({"spatial_dims": 2, "channels": (8, 8, 8, 8)})  # divides by 8
    assert fitted(network, size) == expected
    network.check_size(expected, "patch")


def test_the_shipped_losses_are_valid_and_leave_none_out() -> None:
    from medseg.losses import LOSSES

    choices = read_losses(find_benchmark("losses"))
    used = {loss.name for loss in choices.losses.values()}
    used |= {term["loss"]["name"] for loss in choices.losses.values() for term in loss.model_dump().get("terms", ())}
    assert set(LOSSES.names()) - used == set()
    found = loss_entries(choices, [], [])
    assert [entry.skipped for entry in found if entry.skipped] == []
    assert [entry.experiment.loss for entry in found if entry.experiment] == list(choices.losses.values())


def test_losses_are_compared_like_networks(tmp_path: Path) -> None:
    fake = FakeMedseg(dice=0.8, dice_ce=0.9)
    result = losses(workshop(tmp_path, fake), ["dice", "dice_ce"], None, [], PLAN)
    assert [row[0] for row in lines(tmp_path)[2:4]] == ["dice_ce", "dice"]
    assert [row["label"] for row in result["best"]] == ["dice_ce"]
    with pytest.raises(ConfigError, match="did you mean 'dice'"):
        losses(workshop(tmp_path, fake), ["dise"], None, [], PLAN)


LADDER = {
    "bases": {3: "hippocampus_unet3d"},
    "rungs": [
        {"label": "plain", "set": ["loss={name: cross_entropy}"]},
        {"label": "+ Dice", "set": ["loss={name: dice_ce}"]},
        {"label": "+ mirror", "set": ["inference.flips=[0]"]},
        {"label": "+ clean", "set": ["postprocessing=[{name: keep_largest}]"]},
        {"label": "+ encoder", "set": ["description=WEIGHTS"], "needs_weights": True},
    ],
}


def test_a_rung_that_changes_the_use_alone_is_measured_on_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "ladder.yaml").write_text(yaml.safe_dump(LADDER))
    fake = FakeMedseg(cross_entropy=0.8, dice_ce=0.9)
    climb = Climb(3, tmp_path / "ladder.yaml", None, minutes=1, seeds=2)
    result = ablation(workshop(tmp_path, fake), climb, ["seed=4"])
    assert [row["trained"] for row in result["rows"]] == [True, True, False, False]
    assert len(fake.trainings) == 2 * 2
    uses = [call for call in fake.calls if call[0] == "evaluate"]
    assert len(uses) == 2 * 2
    assert Path(uses[0][1]).parent.parent == tmp_path / "out" / "runs"
    assert 'inference={"overlap"' in " ".join(uses[0])
    assert "keep_largest" not in " ".join(uses[1])
    assert "keep_largest" in " ".join(uses[2])
    gains = [row["gain"] for row in result["rows"]]
    assert gains[0] is None
    assert gains[1:] == pytest.approx([0.1, 0.95 - 0.945, 0.0])
    assert result["rows"][1]["gain_low"] == pytest.approx(0.1)  # the same in each case and seed
    assert lines(tmp_path)[3] == ["+ Dice", "yes", "0.945 [0.920, 0.970]", "+0.100 [+0.100, +0.100]"]
    ablation(workshop(tmp_path, fake), climb, ["seed=4"])
    assert len(fake.calls) == 8  # all were done before


def test_a_rung_that_fails_leaves_the_gains_of_the_others(tmp_path: Path) -> None:
    (tmp_path / "ladder.yaml").write_text(yaml.safe_dump(LADDER))
    fake = FakeMedseg(cross_entropy=0.8, dice_ce=0.9)
    fake.broken = "cross_entropy"
    result = ablation(workshop(tmp_path, fake), Climb(3, tmp_path / "ladder.yaml", seeds=1), [])
    assert result["rows"][0]["error"] == "loss is nan on p1"
    assert [row["gain"] is None for row in result["rows"]] == [True, True, False, False]


def test_the_shipped_ladder_is_valid_in_2d_and_3d() -> None:
    ladder = read_ladder(find_benchmark("ablation"))
    for dims in (2, 3):
        standings = list(climbed(ladder, dims, None, []))
        assert len(standings) == 6
        assert standings[0].experiment.loss.name == "cross_entropy"
        assert [
            one.label
            for one, other in zip(standings[1:], standings, strict=False)
            if one.experiment == other.experiment
        ] == []


def test_the_pretrained_rungs_need_a_file_and_2d(tmp_path: Path) -> None:
    ladder, file = read_ladder(find_benchmark("ablation")), tmp_path / "encoder.safetensors"
    *_, last_but_one, last = climbed(ladder, 2, file, [])
    assert last_but_one.experiment.network.model_dump()["weights"] is None
    assert last.experiment.network.model_dump()["weights"] == str(file)
    assert not last.only_uses(last_but_one)
    assert len(list(climbed(ladder, 3, file, []))) == 6


def test_a_ladder_that_cannot_be_climbed_names_the_rung(tmp_path: Path) -> None:
    rungs = [*LADDER["rungs"][:2], {"label": "+ typo", "set": ["network.chanels=[4,8]"]}]  # type: ignore[index]
    (tmp_path / "ladder.yaml").write_text(yaml.safe_dump({**LADDER, "rungs": rungs}))
    with pytest.raises(ConfigError, match=r"rung '\+ typo'.*did you mean 'channels'"):
        list(climbed(read_ladder(tmp_path / "ladder.yaml"), 3, None, []))
    with pytest.raises(ConfigError, match="--dims 2: the ladder has no base"):
        list(climbed(read_ladder(tmp_path / "ladder.yaml"), 2, None, []))


def test_the_lists_of_benchmarks_are_no_experiments() -> None:
    assert [name for name in shipped_configs() if "benchmark" in name] == []
    with pytest.raises(ConfigError, match=r"neither a path nor a shipped config|does not exist"):
        find_config("benchmarks/losses")


def test_paired_differences_by_arithmetic() -> None:
    """Gains of 0.1, 0.2 and 0.3 in three cases; the case that one seed could not score counts nowhere."""
    before: list[dict[str, float | None]] = [
        {"a": 0.5, "b": 0.6, "c": 0.1, "d": 0.0},
        {"a": 0.7, "b": 0.2, "c": 0.3, "d": 0.0},
    ]
    after: list[dict[str, float | None]] = [
        {"d": None, "a": 0.6, "b": 0.8, "c": 0.4},
        {"a": 0.8, "b": 0.4, "c": 0.6, "d": 1.0},
    ]
    gain = difference_of(before, after)
    assert gain is not None
    assert (gain.value, gain.cases, gain.seeds) == (pytest.approx(0.2), 3, 2)
    assert gain.interval == pytest.approx((0.1, 0.3), abs=1e-9)
    with pytest.raises(ValueError, match="cannot be paired"):
        difference_of(before, after[:1])


def test_intervals_of_one_seed_are_those_over_cases() -> None:
    values = np.random.default_rng(0).random((1, 40))
    assert crossed_interval(values) == bootstrap_interval(values[0])


def test_seeds_that_differ_widen_an_interval() -> None:
    """Cases alike, seeds 0 or 1: the mean of two drawn is 0, 0.5 or 1. Seeds alike: as over cases alone."""
    assert crossed_interval(np.array([[0.0] * 9, [1.0] * 9])) == (0.0, 1.0)
    cases = np.random.default_rng(1).random(50)
    assert crossed_interval(np.stack([cases, cases])) == pytest.approx(bootstrap_interval(cases), abs=0.01)
    assert crossed_interval(np.array([[1.0], [2.0]])) is None


def test_a_mean_of_nothing_is_none() -> None:
    assert mean_of([]) is None
    assert mean_of([{"a": None}]) is None


def test_foreground_dice_is_the_mean_over_the_labels_that_have_one(tmp_path: Path) -> None:
    rows = ["case,label,kind,dice,failure"]
    for case, found in CASES.items():
        rows += [f"{case},label{number},label,{'' if dice is None else dice}," for number, dice in enumerate(found)]
        rows += [f"{case},both,region,0.1,"]
    (tmp_path / "scores.csv").write_text("\n".join([*rows, "d,,,,cannot be read"]) + "\n")
    assert foreground_dice(tmp_path / "scores.csv") == {"a": pytest.approx(0.7), "b": 0.9, "c": None}


def test_cells_of_a_table_are_one_line_without_bars() -> None:
    assert markdown(["a"], [["x | y\nz"]]).splitlines()[2] == "| x \\| y z |"
    gained = {"gain": -0.0044, "gain_low": -0.01, "gain_high": 0.0012}
    assert interval(gained, "gain", "+") == "-0.004 [-0.010, +0.001]"


def test_a_damaged_record_is_done_again(tmp_path: Path, fake: FakeMedseg) -> None:
    networks(workshop(tmp_path, fake), ["unet"], "3", [], Plan(best=0))
    for path in (tmp_path / "out" / "results").glob("*-train-*.json"):
        path.write_text(path.read_text()[:40])
    networks(workshop(tmp_path, fake), ["unet"], "3", [], Plan(best=0))
    assert len(fake.trainings) == 4
    assert json.loads((tmp_path / "out" / "benchmark.json").read_text())["rows"][0]["label"] == "unet"


def test_an_agenda_without_work_is_done(tmp_path: Path, fake: FakeMedseg) -> None:
    assert Agenda(workshop(tmp_path, fake), Console()).train([]) == []
