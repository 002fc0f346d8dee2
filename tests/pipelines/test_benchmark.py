"""Benchmarks: what is done is kept, what fails is shown, and the numbers in the tables are those of the trainings."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from medseg.data.manifest import read_manifest, write_manifest
from medseg.errors import ConfigError, MedsegError
from medseg.extras import ZOO
from medseg.networks import NETWORKS
from pipelines.benchmark.comparison import losses, networks
from pipelines.benchmark.results import Result, foreground_dice, one_machine
from pipelines.benchmark.stages import Plan
from pipelines.benchmark.tables import interval, markdown
from pipelines.benchmark.work import Work
from pipelines.children import ChildError
from pipelines.locations import find_manifest

COST = {
    "seconds": 0.25,
    "fastest_s": 0.2,
    "slowest_s": 0.3,
    "peak_bytes": 40_000_000,
    "batch": 4,
    "precision": "float32",
}
CASES = {"a": (0.8, 0.6), "b": (0.9, None), "c": (None, None)}  # Dice of two labels: means 0.7, 0.9 and none
MACHINE = {"device": "abacus", "cores": 2, "threads": 2, "torch": "2.0", "monai": "1.0", "medseg": "0.1"}
FIRST_ROW, DICE, STEPS_DICE = 2, -2, -1  # of a table: below its headers; and its last columns


class FakeMedseg:
    """Stands for the command: a training has the Dice that `dice` says of its network or loss, plus 0.01 a seed."""

    def __init__(self, **dice: float) -> None:
        self.dice, self.calls = dice, list[list[str]]()
        self.stop_at = -1  # before which training Ctrl-C comes
        self.broken = self.breaks_steps = self.breaks_cost = self.loses_a_case = ""  # names of networks or losses
        self.precision = "float32"

    def __call__(self, arguments: Sequence[str], log: Path, is_asked: Callable[[], bool]) -> dict[str, Any]:
        if arguments[0] == "train" and len(self.trainings) == self.stop_at:
            raise KeyboardInterrupt
        self.calls.append(list(arguments))
        match arguments[:2]:
            case "benchmark", "cost":
                if self._name(arguments[2]) == self.breaks_cost:
                    raise ChildError("out of memory")
                more = {"parameters": 1_234_567, "gflops": 7.89} if "inference" in arguments else {}
                return {**COST, **more, "precision": self.precision}
            case "benchmark", "blind":
                return {"cases": {"a": 0.7, "b": 0.72, "d": 0.1}, "failed": [], "dice": 0.5}
            case "train", _:
                return self._train(arguments)
        raise AssertionError(f"not a command that a comparison starts: {arguments}")

    def _train(self, arguments: Sequence[str]) -> dict[str, Any]:
        experiment, name = yaml.safe_load(Path(arguments[1]).read_text()), self._name(arguments[1])
        steps = experiment["training"]["total_steps"]
        if name == self.broken or (name == self.breaks_steps and steps == 100):
            raise ChildError("loss is nan on p1")
        run = _after(arguments, "--output") / "run"
        evaluation = scored(run / "evaluation", self.dice[name] + 0.01 * experiment["seed"], name == self.loses_a_case)
        weights = f"weights of training {len(self.trainings)}"
        return {"run": str(run), "steps": steps or 321, "weights_sha256": weights, "evaluation": evaluation}

    def _name(self, path: str) -> str:
        experiment = yaml.safe_load(Path(path).read_text())
        loss, network = experiment["loss"]["name"], experiment["network"]["name"]
        return str(loss if loss in self.dice else network)

    @property
    def trainings(self) -> list[list[str]]:
        return [call for call in self.calls if call[0] == "train"]


def scored(folder: Path, dice: float, loses_one: bool = False) -> dict[str, Any]:
    """An evaluation of two cases, 0.02 about a mean Dice; b may have failed."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [f"a,head,label,{dice - 0.02},", "b,,,,broken" if loses_one else f"b,head,label,{dice + 0.02},"]
    (folder / "scores.csv").write_text("\n".join(["case,label,kind,dice,failure", *rows]) + "\n")
    failed = [{"case": "b"}] if loses_one else []
    return {"folder": str(folder), "mean_foreground_dice": dice, "cases": {"failed": failed}}


def _after(arguments: Sequence[str], flag: str) -> Path:
    return Path(arguments[arguments.index(flag) + 1])


PLAN = Plan(minutes=2, steps=100, best=1, best_minutes=10, best_seeds=3)
ONE_STAGE = Plan(best=0)
TWO = ["unet", "attention_unet"]


@pytest.fixture
def fake() -> FakeMedseg:
    return FakeMedseg(unet=0.8, attention_unet=0.85)


def work_in(folder: Path, fake: FakeMedseg, **machine: Any) -> Work:
    return Work(folder / "out", folder / "data", "cpu", {**MACHINE, **machine}, fake)


def lines(folder: Path) -> list[list[str]]:
    page = (folder / "out" / "benchmark.md").read_text()
    return [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("| ")
    ]


def test_the_table_holds_costs_and_dice_the_best_first(tmp_path: Path, fake: FakeMedseg) -> None:
    result = networks(work_in(tmp_path, fake), TWO, "3", ["training.precision=fp32"], ONE_STAGE)
    rows = lines(tmp_path)
    assert [row[0] for row in rows[2:]] == ["attention_unet", "unet"]
    assert rows[3][1:6] == ["3D", "4 x 40 x 56 x 40", "1.23", "7.9", "0.250"]
    assert rows[3][8:] == ["40", "150", "0.800 [0.780, 0.820]", "0.800"]
    assert [row["label"] for row in result["rows"]] == ["attention_unet", "unet"]
    table = list(csv.DictReader(io.StringIO((tmp_path / "out" / "benchmark.csv").read_text())))
    assert float(table[1]["equal_minutes_dice"]) == pytest.approx(0.8)
    assert float(table[1]["training_slowest_s"]) == 0.3
    assert table[1]["equal_steps_steps"] == "100.0"
    assert (table[1]["optimizer"], table[1]["batch"]) == ("adamw", "4")
    assert float(table[1]["learning_rate"]) == 0.003
    assert table[1]["training_precision"] == "float32"
    head = (tmp_path / "out" / "benchmark.md").read_text().splitlines()[0]
    assert head == "abacus, 2 cores, 2 threads, torch 2.0, monai 1.0, medseg 0.1; float32; hippocampus fold 1; seed 0."


def test_the_best_train_longer_under_several_seeds(tmp_path: Path, fake: FakeMedseg) -> None:
    result = networks(work_in(tmp_path, fake), TWO, "3", [], PLAN)
    assert [row["label"] for row in result["best"]] == ["attention_unet"]
    best = result["best"][0]
    assert best["equal_minutes_dice"] == pytest.approx(0.85 + 0.01)  # seeds 0, 1, 2
    assert best["equal_minutes_seeds"] == 3
    settings = [yaml.safe_load(Path(call[1]).read_text()) for call in fake.trainings]
    lengths = [(one["seed"], one["training"]["total_steps"]) for one in settings[4:]]
    assert lengths == [(0, 750), (1, 750), (2, 750)]  # ten minutes of 4 x 0.2 s, the fastest step
    assert {one["tracking"]["name"] for one in settings} == {"none"}


def test_a_stopped_benchmark_goes_on_where_it_was(
    tmp_path: Path, fake: FakeMedseg, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        networks(work_in(tmp_path, fake), TWO, "3", [], ONE_STAGE)
    assert "stopped, trainings left: 1; the same command" in capsys.readouterr().out
    again = FakeMedseg(unet=0.1, attention_unet=0.85)  # what is done is not done anew
    result = networks(work_in(tmp_path, again), TWO, "3", [], ONE_STAGE)
    assert [call[0] for call in again.calls] == ["train", "benchmark"]  # and what is blind to the image
    assert "3 of 4 trainings were done before" in capsys.readouterr().out
    assert {row["label"]: row["equal_minutes_dice"] for row in result["rows"]}["unet"] == pytest.approx(0.8)


def test_another_seed_or_budget_is_another_training(tmp_path: Path, fake: FakeMedseg) -> None:
    for assignments, plan in (([], ONE_STAGE), (["seed=7"], ONE_STAGE), ([], Plan(minutes=3, best=0))):
        networks(work_in(tmp_path, fake), ["unet"], "3", assignments, plan)
    assert len(fake.trainings) == 2 + 2 + 1


def test_one_that_fails_is_shown_and_stops_no_other(
    tmp_path: Path, fake: FakeMedseg, capsys: pytest.CaptureFixture[str]
) -> None:
    fake.broken = "attention_unet"
    result = networks(work_in(tmp_path, fake), TWO, "3", [], ONE_STAGE)
    assert [row["label"] for row in result["rows"]] == ["unet", "attention_unet"]
    assert lines(tmp_path)[-1][-2] == "failed: loss is nan on p1"
    assert "failed: loss is nan on p1" in capsys.readouterr().out
    fake.broken = ""
    result = networks(work_in(tmp_path, fake), TWO, "3", [], ONE_STAGE)  # mended: tried again
    assert result["rows"][0]["equal_minutes_dice"] == pytest.approx(0.85)


def test_nothing_but_failures_is_an_error(tmp_path: Path, fake: FakeMedseg) -> None:
    fake.broken = "unet"
    with pytest.raises(MedsegError, match=r"every training failed.*loss is nan"):
        networks(work_in(tmp_path, fake), ["unet"], "3", [], ONE_STAGE)
    assert (tmp_path / "out" / "benchmark.md").is_file()


def test_only_cost_trains_nothing(tmp_path: Path, fake: FakeMedseg) -> None:
    networks(work_in(tmp_path, fake), TWO, "3", [], Plan(only_cost=True))
    assert len(fake.calls) == 4
    assert fake.trainings == []
    assert lines(tmp_path)[-1][9:] == ["–", "–", "–"]
    assert "blind" not in (tmp_path / "out" / "benchmark.md").read_text()


def test_a_network_without_its_extra_is_skipped_with_a_line_that_says_so(
    tmp_path: Path, fake: FakeMedseg, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(NETWORKS["attention_unet"], "extras", {3: ZOO})
    monkeypatch.setitem(sys.modules, "timm", None)
    networks(work_in(tmp_path, fake), TWO, "3", [], ONE_STAGE)
    said = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("skipped: attention_unet"))
    assert "pip install 'medseg[zoo]'" in said
    assert len(fake.trainings) == 2
    assert lines(tmp_path)[-1][-2].startswith("skipped: ")


def test_progress_names_the_place_and_the_time_left(
    tmp_path: Path, fake: FakeMedseg, capsys: pytest.CaptureFixture[str]
) -> None:
    networks(work_in(tmp_path, fake), TWO, "3", [], ONE_STAGE)
    told = capsys.readouterr().out
    assert "cost 2/2: unet_3d, inference" in told
    # two of 2 minutes, two of 100 steps of 4 x 0.2 s, and half a minute around each
    assert "training 1/4: attention_unet_3d, 150 steps, seed 0; about 8 min 40 s left" in told
    assert "training 4/4: unet_3d, 100 steps, seed 0; about 1 min 20 s left" in told  # what was around took no time


def test_losses_are_compared_like_networks(tmp_path: Path) -> None:
    fake = FakeMedseg(dice=0.8, dice_ce=0.9)
    result = losses(work_in(tmp_path, fake), ["dice", "dice_ce"], None, [], PLAN)
    assert [row[0] for row in lines(tmp_path)[2:4]] == ["dice_ce", "dice"]
    assert [row["label"] for row in result["best"]] == ["dice_ce"]
    with pytest.raises(ConfigError, match="did you mean 'dice'"):
        losses(work_in(tmp_path, fake), ["dise"], None, [], PLAN)


def test_a_cost_that_fails_is_shown_and_fails_no_training(tmp_path: Path, fake: FakeMedseg) -> None:
    fake.breaks_cost = "unet"
    result = networks(work_in(tmp_path, fake), ["unet"], "3", [], ONE_STAGE)
    row = lines(tmp_path)[FIRST_ROW]
    assert row[5:7] == ["failed: out of memory"] * 2
    assert row[DICE].startswith("0.800")
    assert result["rows"][0]["error"] == "failed: out of memory"
    with pytest.raises(MedsegError, match=r"every measurement failed.*out of memory"):
        networks(work_in(tmp_path / "other", fake), ["unet"], "3", [], Plan(only_cost=True))


def test_equal_steps_that_fail_say_so_in_their_own_cell(tmp_path: Path, fake: FakeMedseg) -> None:
    fake.breaks_steps = "unet"
    networks(work_in(tmp_path, fake), ["unet"], "3", [], ONE_STAGE)
    row = lines(tmp_path)[FIRST_ROW]
    assert row[DICE].startswith("0.800")
    assert row[STEPS_DICE] == "failed: loss is nan on p1"


def test_all_are_ranked_by_one_budget(tmp_path: Path) -> None:
    """What fails in the minutes comes last, whatever its steps reached."""

    class Slow(FakeMedseg):
        def _train(self, arguments: Sequence[str]) -> dict[str, Any]:
            if "total_steps: 150" in Path(arguments[1]).read_text() and self._name(arguments[1]) == "attention_unet":
                raise ChildError("no step fits")
            return super()._train(arguments)

    result = networks(work_in(tmp_path, Slow(unet=0.5, attention_unet=0.9)), TWO, "3", [], ONE_STAGE)
    assert [row["label"] for row in result["rows"]] == ["unet", "attention_unet"]
    assert result["rows"][1]["equal_steps_dice"] == pytest.approx(0.9)
    by_steps = networks(work_in(tmp_path, Slow(unet=0.5, attention_unet=0.9)), TWO, "3", [], Plan(minutes=0, best=0))
    assert [row["label"] for row in by_steps["rows"]] == ["attention_unet", "unet"]


def test_means_are_over_the_cases_that_all_could_score(tmp_path: Path, fake: FakeMedseg) -> None:
    """unet loses b: 0.78 in a alone, where attention_unet has 0.83."""
    fake.loses_a_case = "unet"
    networks(work_in(tmp_path, fake), TWO, "3", [], ONE_STAGE)
    first, second = lines(tmp_path)[FIRST_ROW:]
    assert (first[DICE], second[DICE]) == ("0.830", "0.780 (1 of 2 cases)")
    page = (tmp_path / "out" / "benchmark.md").read_text()
    assert "every mean is over the 1 that all rows scored" in page
    assert "has Dice 0.700 on the same cases" in page


def test_the_table_tells_what_a_blind_prediction_reaches(tmp_path: Path, fake: FakeMedseg) -> None:
    networks(work_in(tmp_path, fake), TWO, "3", [], ONE_STAGE)
    assert "has Dice 0.710 on the same cases" in (tmp_path / "out" / "benchmark.md").read_text()


def test_the_best_of_2d_and_3d_go_on_together_and_are_held_against_the_first(tmp_path: Path) -> None:
    fake = FakeMedseg(unet=0.8, attention_unet=0.85)
    plan = replace(PLAN, best=3)
    best = networks(work_in(tmp_path, fake), TWO, "both", [], plan)["best"]
    names = [(row["label"], row["dims"]) for row in best]
    assert names[:2] == [("attention_unet", 2), ("attention_unet", 3)]
    assert len(names) == 3
    assert [row["difference"] for row in best] == [None, pytest.approx(0), pytest.approx(-0.05)]
    assert lines(tmp_path)[-1][-1] == "-0.050 [-0.050, -0.050]"


def test_results_of_another_machine_or_version_are_left_and_said(
    tmp_path: Path, fake: FakeMedseg, capsys: pytest.CaptureFixture[str]
) -> None:
    networks(work_in(tmp_path, fake), ["unet"], "3", [], ONE_STAGE)
    other = work_in(tmp_path, fake, torch="3.0")
    other.tell_of_others()
    assert "not used: 5 results in" in capsys.readouterr().out
    networks(other, ["unet"], "3", [], ONE_STAGE)
    assert len(fake.trainings) == 4
    assert "torch 3.0" in (tmp_path / "out" / "benchmark.md").read_text().splitlines()[0]


def test_one_table_holds_one_machine() -> None:
    here, there = (Result("unet_3d", {}, None, 1.0, {**MACHINE, "cores": cores}) for cores in (2, 64))
    assert one_machine([here, here]) == MACHINE
    with pytest.raises(MedsegError, match=r"64 cores.*2 cores.*give another --output"):
        one_machine([here, there])


def test_precisions_come_from_the_results(tmp_path: Path, fake: FakeMedseg) -> None:
    fake.precision = "bfloat16"
    result = networks(work_in(tmp_path, fake), ["unet"], "3", ["training.precision=fp32"], ONE_STAGE)
    assert result["rows"][0]["inference_precision"] == "bfloat16"
    assert "; mixed: bfloat16, float32; " in (tmp_path / "out" / "benchmark.md").read_text()


def test_another_manifest_is_other_work(tmp_path: Path, fake: FakeMedseg) -> None:
    """A manifest whose last case is left out; without digests, the place of the files counts too."""
    whole = read_manifest(find_manifest("hippocampus"))
    write_manifest(replace(whole, cases=whole.cases[:-1]), tmp_path / "fewer")
    bare = [replace(case, image_digests=(None,), label_digest=None) for case in whole.cases]
    write_manifest(replace(whole, cases=tuple(bare)), tmp_path / "bare")

    def trainings(manifest: str, root: str = "data") -> int:
        before, work = len(fake.trainings), replace(work_in(tmp_path, fake), data_root=tmp_path / root)
        networks(work, ["unet"], "3", [f"data.manifest={manifest}"], ONE_STAGE)
        return len(fake.trainings) - before

    assert [trainings("hippocampus"), trainings("hippocampus", "moved"), trainings(f"{tmp_path / 'fewer'}")] == [
        2,
        0,
        2,
    ]
    path = f"{tmp_path / 'bare'}"
    assert [trainings(path), trainings(path), trainings(path, "moved")] == [2, 0, 2]
    write_manifest(replace(whole, cases=tuple(bare[:-1])), tmp_path / "bare", force=True)
    assert trainings(path) == 2


def test_work_that_ends_when_ctrl_c_comes_is_kept(tmp_path: Path, fake: FakeMedseg) -> None:
    def asked(arguments: Sequence[str], log: Path, is_asked: Callable[[], bool]) -> dict[str, Any]:
        answer = fake(arguments, log, is_asked)
        if arguments[0] == "train":
            os.kill(os.getpid(), signal.SIGINT)
        return answer

    with pytest.raises(KeyboardInterrupt):
        networks(replace(work_in(tmp_path, fake), medseg=asked), ["unet"], "3", [], ONE_STAGE)
    assert len(list((tmp_path / "out" / "results").glob("*-train-*.json"))) == len(fake.trainings) == 1
    networks(work_in(tmp_path, fake), ["unet"], "3", [], ONE_STAGE)
    assert len(fake.trainings) == 2


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


@pytest.mark.parametrize("how", ["damaged", "of another schema"])
def test_a_record_that_cannot_be_read_is_done_again(how: str, tmp_path: Path, fake: FakeMedseg) -> None:
    networks(work_in(tmp_path, fake), ["unet"], "3", [], ONE_STAGE)
    for path in (tmp_path / "out" / "results").glob("*-train-*.json"):
        text = path.read_text()
        path.write_text(
            text[:40] if how == "damaged" else text.replace('"schema_version": 2', '"schema_version": 1', 1)
        )
    networks(work_in(tmp_path, fake), ["unet"], "3", [], ONE_STAGE)
    assert len(fake.trainings) == 4
    assert json.loads((tmp_path / "out" / "benchmark.json").read_text())["rows"][0]["label"] == "unet"
