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
    """A row for each label and region, the foreground last: means over cases, Dice with its interval.

    `n` are the cases that the means of Dice count, `n dist` those of HD95 and ASSD.
    """
    unit = summary.unit
    headers = ["label", "n", "Dice", "95 % interval", "median", "pooled", "IoU", "precision", "recall", "accuracy"]
    headers += [f"HD95 {unit}", f"ASSD {unit}", "NSD", "n dist", "volume error %", "absent", "missed", "spurious"]
    return Table(headers, [_summary_row(row) for row in (*summary.labels, summary.foreground)])


def case_table(scores: Scores, limit: int | None = None) -> Table:
    """A row for each case: the failed ones with their reason, then the scored, worst foreground Dice first."""
    names = scores.labels.names
    headers = ["case", f"Dice {FOREGROUND}", *(f"Dice {name}" for name in names), "HD95", "NSD", "note"]
    rows = [[failed.case, *[_UNDEFINED] * (len(names) + 3), failed.reason] for failed in scores.failed]
    for case in scores.worst_first():
        dice = {one.label: one.dice for one in case.labels}
        note = ", ".join(f"{one.label} {one.presence}" for one in case.labels if one.presence in ("missed", "spurious"))
        shown = [_number(case.foreground()), *(_number(dice[name]) for name in names)]
        rows.append([case.case, *shown, _number(case.foreground("hd95"), 2), _number(case.foreground("nsd")), note])
    return Table(headers, rows[:limit])


def _summary_row(row: LabelSummary) -> list[str]:
    dice, hd95 = row.statistics["dice"], row.statistics["hd95"]
    interval = _UNDEFINED if dice.interval is None else " to ".join(_number(end) for end in dice.interval)
    ratios = [_mean(row, name) for name in ("iou", "precision", "recall", "accuracy")]
    return [
        f"{row.name} (region)" if row.is_region else row.name,
        str(dice.n),
        _number(dice.mean),
        interval,
        _number(dice.median),
        _number(row.pooled.dice),
        *ratios,
        _number(hd95.mean, 2),
        _mean(row, "assd", 2),
        _mean(row, "nsd"),
        str(hd95.n),
        _mean(row, "volume_error_percent", 1),
        str(row.absent),
        str(row.missed),
        str(row.spurious),
    ]


def _mean(row: LabelSummary, metric: str, digits: int = 3) -> str:
    statistic: Statistic | None = row.statistics.get(metric)
    return _number(statistic.mean if statistic else None, digits)


def _number(value: float | None, digits: int = 3) -> str:
    return _UNDEFINED if value is None else f"{value:.{digits}f}"
