"""The result of a benchmark as files: JSON for programs, CSV for spreadsheets, Markdown for a page such as README."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medseg.io.atomic import atomic_write_text
from pipelines.benchmark.contest import Row, dice_of
from pipelines.benchmark.statistics import Mean
from pipelines.process import plain

JSON, CSV, MARKDOWN = "benchmark.json", "benchmark.csv", "benchmark.md"
SCHEMA_VERSION = 1
_NONE = "–"
Content = Mapping[str, Any]


def row_content(row: Row) -> dict[str, Any]:
    """A row as flat values: None where something was not measured, or failed."""
    experiment = row.entry.experiment
    content: dict[str, Any] = {
        "label": row.entry.label,
        "dims": row.entry.dims,
        "patch": None if experiment is None else " x ".join(map(str, experiment.patch.size)),
        "parameters": _answer(row, "inference").get("parameters"),
        "gflops": _answer(row, "inference").get("gflops"),
    }
    for phase in ("training", "inference"):
        answer = _answer(row, phase)
        for name in ("seconds", "fastest_s", "slowest_s", "peak_bytes", "batch"):
            content[f"{phase}_{name}"] = answer.get(name)
    for budget, results in (("minutes", row.in_minutes), ("steps", row.in_steps)):
        content |= mean_content(dice_of(results), f"equal_{budget}_")
        done = [result.answer["steps"] for result in results if result.answer is not None]
        content[f"equal_{budget}_steps"] = sum(done) / len(done) if done else None
    kind = "skipped" if row.entry.skipped else "failed"
    return {**content, "error": f"{kind}: {row.error}" if row.error else None}


def mean_content(mean: Mean | None, prefix: str = "", name: str = "dice") -> dict[str, Any]:
    """A mean, its interval and its counts as flat values."""
    low, high = (None, None) if mean is None or mean.interval is None else mean.interval
    value, cases, seeds = (None, None, None) if mean is None else (mean.value, mean.cases, mean.seeds)
    values = {name: value, f"{name}_low": low, f"{name}_high": high, "cases": cases, "seeds": seeds}
    return {f"{prefix}{key}": one for key, one in values.items()}


def contest_table(contents: Sequence[Content], first: str, is_about_networks: bool) -> str:
    """Markdown with a line for each row; what all losses share (weights, arithmetic) is shown of networks only."""
    headers = [first, "dims"]
    headers += ["patch", "parameters M", "GFLOPs"] if is_about_networks else []
    headers += ["s/patch train"] + (["s/patch inference"] if is_about_networks else [])
    headers += ["peak MB train"] + (["peak MB inference"] if is_about_networks else [])
    headers += ["steps in the minutes", "Dice, equal minutes [95 % interval]", "Dice, equal steps"]
    return markdown(headers, [_contest_cells(content, is_about_networks) for content in contents])


def best_table(contents: Sequence[Content], first: str) -> str:
    """Markdown with the second stage: longer trainings under several seeds."""
    headers = [first, "dims", "seeds", "steps", "Dice [95 % interval over cases and seeds]"]
    return markdown(
        headers,
        [
            [
                one["label"],
                f"{one['dims']}D",
                number(one["equal_minutes_seeds"], 0),
                number(one["equal_minutes_steps"], 0),
                _failed(one) or interval(one, "equal_minutes_dice"),
            ]
            for one in contents
        ],
    )


def markdown(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; a bar in a cell is masked."""
    lines = [list(headers), ["---"] * len(headers), *rows]
    return "\n".join(
        "| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in line) + " |" for line in lines
    )


def number(value: float | None, digits: int) -> str:
    """A number for people, or a dash."""
    return _NONE if value is None else f"{value:.{digits}f}"


def interval(content: Content, name: str, sign: str = "") -> str:
    """ "0.880 [0.871, 0.888]"; with the sign "+" as "+0.004 [-0.001, +0.009]"."""
    value, low, high = (content[key] for key in (name, f"{name}_low", f"{name}_high"))
    if value is None:
        return _NONE
    shown = f"{value:{sign}.3f}"
    return shown if low is None else f"{shown} [{low:{sign}.3f}, {high:{sign}.3f}]"


def write(folder: Path, result: Mapping[str, Any], contents: Sequence[Content], page: str) -> None:
    """Writes benchmark.json, benchmark.csv and benchmark.md, each whole or not at all. Raises WriteError."""
    text = json.dumps(plain({"schema_version": SCHEMA_VERSION, **result}), indent=2, ensure_ascii=False)
    atomic_write_text(folder / JSON, text + "\n")
    table = io.StringIO()
    writer = csv.DictWriter(table, list(contents[0]), restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(contents)
    atomic_write_text(folder / CSV, table.getvalue())
    atomic_write_text(folder / MARKDOWN, page)


def _contest_cells(one: Content, is_about_networks: bool) -> list[str]:
    cells = [str(one["label"]), f"{one['dims']}D"]
    if is_about_networks:
        cells += [one["patch"] or _NONE, number(_scaled(one["parameters"], 1e6), 2), number(one["gflops"], 1)]
    for name, scale, digits in (("seconds", 1, 3), ("peak_bytes", 1e6, 0)):
        phases = ("training", "inference") if is_about_networks else ("training",)
        cells += [number(_scaled(one[f"{phase}_{name}"], scale), digits) for phase in phases]
    dice = _failed(one) or interval(one, "equal_minutes_dice")
    return [*cells, number(one["equal_minutes_steps"], 0), dice, number(one["equal_steps_dice"], 3)]


def _failed(one: Content) -> str:
    """What stands in the place of a Dice that is missing because something failed."""
    error = (one["error"] if one["equal_minutes_dice"] is None else None) or ""
    return error if len(error) <= 120 else f"{error[:117]}..."


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else value / scale


def _answer(row: Row, phase: str) -> dict[str, Any]:
    found = row.costs.get(phase)
    return (found.answer if found is not None else None) or {}
