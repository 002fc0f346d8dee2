"""The ablation: what one part after another adds, trained only where the training changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from medseg.errors import MedsegError
from pipelines.benchmark.ablation import AblationPlan, ablation
from pipelines.benchmark.work import Work
from pipelines.children import ChildError

MACHINE = {"device": "abacus", "cores": 2, "threads": 2, "torch": "2.0", "monai": "1.0", "medseg": "0.1"}
DICE = {"cross_entropy": 0.8, "dice_ce": 0.9}  # of a training by its loss; plus 0.01 a seed
LADDER: dict[str, Any] = {
    "bases": {3: "hippocampus_unet3d"},
    "rungs": [
        {"label": "plain", "set": ["loss={name: cross_entropy}"]},
        {"label": "+ Dice", "set": ["loss={name: dice_ce}"]},
        {"label": "+ mirror", "set": ["inference.flips=[0]"]},
        {"label": "+ clean", "set": ["postprocessing=[{name: keep_largest}]"]},
        {"label": "+ encoder", "set": ["description=WEIGHTS"], "needs_weights": True},
    ],
}


class FakeMedseg:
    """Stands for the command; every model that is used in another way has a Dice of 0.95."""

    def __init__(self, broken: Sequence[str] = ()) -> None:
        self.broken, self.calls = broken, list[list[str]]()

    def __call__(self, arguments: Sequence[str], log: Path, is_asked: Callable[[], bool]) -> dict[str, Any]:
        self.calls.append(list(arguments))
        if arguments[1] == "cost":
            return {"seconds": 0.3, "fastest_s": 0.25, "batch": 4, "precision": "float32"}
        if arguments[0] == "benchmark":
            return {"cases": {"a": 0.7, "b": 0.72}, "failed": [], "dice": 0.71}
        goal = Path(arguments[arguments.index("--output") + 1])
        if arguments[0] == "evaluate":
            return scored(goal, 0.95)
        experiment = yaml.safe_load(Path(arguments[1]).read_text())
        if experiment["loss"]["name"] in self.broken:
            raise ChildError("loss is nan on p1")
        evaluation = scored(goal / "run" / "evaluation", DICE[experiment["loss"]["name"]] + 0.01 * experiment["seed"])
        facts = {"steps": 321, "weights_sha256": f"weights after {len(self.calls)} commands"}
        return {"run": str(goal / "run"), **facts, "evaluation": evaluation}


def scored(folder: Path, dice: float) -> dict[str, Any]:
    """An evaluation of two cases, 0.02 about a mean Dice."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = ["case,label,kind,dice,failure", f"a,head,label,{dice - 0.02},", f"b,head,label,{dice + 0.02},"]
    (folder / "scores.csv").write_text("\n".join(rows) + "\n")
    return {"folder": str(folder), "mean_foreground_dice": dice, "cases": {"failed": []}}


def work_in(folder: Path, fake: FakeMedseg) -> Work:
    return Work(folder / "out", folder / "data", "cpu", MACHINE, fake)


def page(folder: Path) -> str:
    return (folder / "out" / "benchmark.md").read_text()


def test_a_rung_that_changes_the_use_alone_is_measured_on_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "ladder.yaml").write_text(yaml.safe_dump(LADDER))
    fake = FakeMedseg()
    plan = AblationPlan(3, tmp_path / "ladder.yaml", None, minutes=1, seeds=2)
    result = ablation(work_in(tmp_path, fake), plan, ["seed=4", "training.precision=fp32"])
    assert [row["trained"] for row in result["rows"]] == [True, True, False, False]
    assert [call[0] for call in fake.calls].count("train") == 2 * 2
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
    assert "| + Dice | yes | 0.945 [0.878, 1.012] | +0.100 [+0.100, +0.100] |" in page(tmp_path)
    assert "bfloat16" not in page(tmp_path)
    assert "has Dice 0.710 on the same cases" in page(tmp_path)
    ablation(work_in(tmp_path, fake), plan, ["seed=4", "training.precision=fp32"])
    assert len(fake.calls) == 11  # all were done before


def test_a_rung_that_fails_leaves_the_gains_of_the_others(tmp_path: Path) -> None:
    (tmp_path / "ladder.yaml").write_text(yaml.safe_dump(LADDER))
    fake = FakeMedseg(broken=["cross_entropy"])
    result = ablation(work_in(tmp_path, fake), AblationPlan(3, tmp_path / "ladder.yaml", seeds=1), [])
    assert result["rows"][0]["error"] == "loss is nan on p1"
    assert [row["gain"] is None for row in result["rows"]] == [True, True, False, False]


def test_a_ladder_of_failures_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "ladder.yaml").write_text(yaml.safe_dump({**LADDER, "rungs": LADDER["rungs"][2:4]}))
    fake = FakeMedseg(broken=["dice_ce"])
    with pytest.raises(MedsegError, match=r"every training failed.*loss is nan"):
        ablation(work_in(tmp_path, fake), AblationPlan(3, tmp_path / "ladder.yaml", seeds=1), [])
    assert (tmp_path / "out" / "benchmark.md").is_file()


def test_a_model_that_was_trained_anew_is_used_anew(tmp_path: Path) -> None:
    (tmp_path / "ladder.yaml").write_text(yaml.safe_dump(LADDER))
    fake, plan = FakeMedseg(), AblationPlan(3, tmp_path / "ladder.yaml", seeds=1)
    ablation(work_in(tmp_path, fake), plan, [])
    for path in (tmp_path / "out" / "results").glob("*-train-*.json"):
        path.unlink()
    before = len(fake.calls)
    ablation(work_in(tmp_path, fake), plan, [])
    assert [call[0] for call in fake.calls[before:]] == ["train", "train", "evaluate", "evaluate"]
