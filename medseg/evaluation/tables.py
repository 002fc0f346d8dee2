"""Scores as headers and rows of text, ready for a terminal or a page."""

from __future__ import annotations

from typing import NamedTuple

from medseg.evaluation.scores import FOREGROUND, Scores
from medseg.evaluation.summary import LabelSummary, Statistic, Summary

_UNDEFINED = "–"


class Table(NamedTuple):
    """A table of text; every row has as many cells as there are headers."""

    headers: list[str]
    rows: list[list[str]]


def summary_table(summary: Summary) -> Table:
    """Overlap: means over cases, a row for each label and region and for the foreground; `cases` are those of Dice."""
    headers = ["label", "cases", "Dice", "95 % interval", "median", "pooled", "IoU", "precision", "recall", "accuracy"]
    return Table(headers, [_overlap_row(row) for row in (*summary.labels, summary.foreground)])


def distance_table(summary: Summary) -> Table:
    """Distances and volumes: rows as in `summary_table`; `cases` are those that HD95 and ASSD count."""
    headers = ["label", "cases", f"HD95 {summary.unit}", f"ASSD {summary.unit}", "NSD", "volume error %"]
    rows = [_distance_row(row) for row in (*summary.labels, summary.foreground)]
    return Table([*headers, "absent", "missed", "spurious"], rows)


def case_table(scores: Scores, limit: int | None = None) -> Table:
    """A row for each case: the failed ones with their reason, then the scored, worst foreground Dice first."""
    names = scores.labels.names
    headers = ["case", f"Dice {FOREGROUND}", *(f"Dice {name}" for name in names), "HD95", "NSD", "note"]
    rows = [[failed.case, *[_UNDEFINED] * (len(names) + 3), failed.reason] for failed in scores.failed]
    for case in scores.worst_first():
        dice = {one.label: one.dice for one in case.labels}
        note = ", ".join(f"{one.label} {one.presence}" for one in case.labels if one.presence in ("missed", "spurious"))
        shown = [_number(case.foreground()), *(_number(dice.get(name)) for name in names)]
        rows.append([case.case, *shown, _number(case.foreground("hd95"), 2), _number(case.foreground("nsd")), note])
    return Table(headers, rows[:limit])


def _overlap_row(row: LabelSummary) -> list[str]:
    dice = row.statistics["dice"]
    interval = _UNDEFINED if dice.interval is None else " to ".join(_number(end) for end in dice.interval)
    shown = [str(dice.n), _number(dice.mean), interval, _number(dice.median), _number(row.pooled.dice)]
    return [_name(row), *shown, *(_mean(row, name) for name in ("iou", "precision", "recall", "accuracy"))]


def _distance_row(row: LabelSummary) -> list[str]:
    means = [_mean(row, "hd95", 2), _mean(row, "assd", 2), _mean(row, "nsd"), _mean(row, "volume_error_percent", 1)]
    counts = [str(count) for count in (row.absent, row.missed, row.spurious)]
    return [_name(row), str(row.statistics["hd95"].n), *means, *counts]


def _name(row: LabelSummary) -> str:
    return f"{row.name} (region)" if row.is_region else row.name


def _mean(row: LabelSummary, metric: str, digits: int = 3) -> str:
    statistic: Statistic | None = row.statistics.get(metric)
    return _number(statistic.mean if statistic else None, digits)


def _number(value: float | None, digits: int = 3) -> str:
    return _UNDEFINED if value is None else f"{value:.{digits}f}"
