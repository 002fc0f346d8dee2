"""Scores on disk: every case is there, and what is undefined is empty or null."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from medseg.errors import WriteError
from medseg.evaluation import Scores, summarise, write_scores
from medseg.evaluation.writing import COLUMNS


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_csv_has_a_row_for_each_case_and_label_and_for_each_failure(scores: Scores, tmp_path: Path) -> None:
    table, _ = write_scores(tmp_path / "new" / "folder", scores, summarise(scores))
    rows = read_rows(table)
    assert tuple(rows[0]) == COLUMNS
    assert [(row["case"], row["label"]) for row in rows[:3]] == [("good", "core"), ("good", "rim"), ("good", "whole")]
    assert len(rows) == 3 * 3 + 1
    assert (rows[-1]["case"], rows[-1]["failure"]) == ("broken", "ReadError: file is damaged, fetch it again")


def test_numbers_in_the_csv_are_exact_and_undefined_is_empty(scores: Scores, tmp_path: Path) -> None:
    rows = {(row["case"], row["label"]): row for row in read_rows(write_scores(tmp_path, scores, summarise(scores))[0])}
    shifted, missed = rows["shifted", "core"], rows["missed", "rim"]
    assert (float(shifted["dice"]), int(shifted["tp"]), int(shifted["fp"])) == (0.5, 18, 18)
    assert float(shifted["iou"]) == scores.cases[1].labels[0].iou
    assert (missed["presence"], missed["dice"], missed["precision"], missed["hd95"]) == ("missed", "0.0", "", "")
    assert rows["good", "whole"]["kind"] == "region"


def test_the_summary_is_strict_json_with_a_version(scores: Scores, tmp_path: Path) -> None:
    text = write_scores(tmp_path, scores, summarise(scores))[1].read_text(encoding="utf-8")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    content = json.loads(text, parse_constant=refuse)  # NaN and Infinity are no JSON
    assert content["schema_version"] == 1
    assert content["cases"]["scored"] == 3
    assert content["cases"]["failed"][0]["case"] == "broken"
    assert content["foreground"]["metrics"]["dice"]["mean"] == pytest.approx(0.75)
    assert content["labels"]["rim"]["missed"] == 1
    assert content["labels"]["core"]["pooled"]["dice"] == pytest.approx(180 / 216)
    assert len(content["labels"]["core"]["metrics"]["dice"]["interval"]) == 2
    assert content["confusion"]["voxels"][1] == [18, 90, 0]


def test_the_same_scores_give_the_same_bytes(scores: Scores, tmp_path: Path) -> None:
    first = [path.read_bytes() for path in write_scores(tmp_path / "a", scores, summarise(scores))]
    second = [path.read_bytes() for path in write_scores(tmp_path / "b", scores, summarise(scores))]
    assert first == second


def test_nothing_scored_is_written_as_null(scores: Scores, tmp_path: Path) -> None:
    empty = Scores(scores.labels, (), scores.failed)
    content = json.loads(write_scores(tmp_path, empty, summarise(empty))[1].read_text(encoding="utf-8"))
    assert content["foreground"]["metrics"]["dice"] == {
        "n": 0, "mean": None, "median": None, "sd": None, "minimum": None, "maximum": None, "interval": None
    }  # fmt: skip


def test_a_file_in_the_way_is_named(scores: Scores, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(WriteError, match="taken"):
        write_scores(tmp_path / "taken", scores, summarise(scores))
