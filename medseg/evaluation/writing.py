"""Scores on disk: a CSV for spreadsheets, a JSON for programs, each there whole or not at all."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from medseg.errors import WriteError
from medseg.evaluation.scores import CaseScores, Scores
from medseg.evaluation.summary import LabelSummary, Summary
from medseg.io.atomic import atomic_write_text
from medseg.metrics import METRICS, LabelScore

SCHEMA_VERSION = 1  # of summary.json
SCORES, SUMMARY = "scores.csv", "summary.json"

_VOLUMES = ("volume_truth_ml", "volume_prediction_ml")
_COUNTS = ("tp", "fp", "fn", "tn")
COLUMNS = ("case", "label", "kind", "presence", *METRICS, *_VOLUMES, *_COUNTS, "case_accuracy", "unit", "failure")


def write_scores(folder: Path, scores: Scores, summary: Summary) -> tuple[Path, Path]:
    """Writes `scores.csv`, a row for each case and label, and `summary.json`; gives their paths.

    Undefined is an empty cell, and null. Raises WriteError where the folder takes no files.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{folder}: is no folder to write scores to ({error.strerror}); give another") from error
    table = atomic_write_text(folder / SCORES, scores_csv(scores))
    text = json.dumps(summary_content(summary), indent=2, ensure_ascii=False, allow_nan=False)
    return table, atomic_write_text(folder / SUMMARY, text + "\n")


def scores_csv(scores: Scores) -> str:
    """A header, the rows of the scored cases, then one row for each failed case with its reason."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_row(case, one) for case in scores.cases for one in case.labels)
    writer.writerows({"case": one.case, "failure": " ".join(one.reason.split())} for one in scores.failed)
    return text.getvalue()


def summary_content(summary: Summary) -> dict[str, Any]:
    """The summary as plain values for JSON."""
    confusion = None
    if summary.confusion is not None:
        names = list(summary.confusion_names)
        confusion = {"rows": "truth", "columns": "prediction", "names": names, "voxels": summary.confusion.tolist()}
    return {
        "schema_version": SCHEMA_VERSION,
        "cases": {"scored": summary.cases, "failed": [asdict(one) for one in summary.failed]},
        "settings": summary.settings.model_dump(mode="json"),
        "unit": summary.unit,
        "foreground": _label(summary.foreground),
        "labels": {row.name: _label(row) for row in summary.labels},
        "confusion": confusion,
    }


def _row(case: CaseScores, one: LabelScore) -> dict[str, Any]:
    return {
        "case": one.case,
        "label": one.label,
        "kind": "region" if one.is_region else "label",
        "presence": one.presence,
        **{name: getattr(one, name) for name in (*METRICS, *_VOLUMES)},
        **asdict(one.counts),
        "case_accuracy": case.accuracy,
        "unit": one.unit,
    }


def _label(row: LabelSummary) -> dict[str, Any]:
    return {
        "kind": "region" if row.is_region else "label",
        "absent": row.absent,
        "missed": row.missed,
        "spurious": row.spurious,
        "pooled": {"dice": row.pooled.dice, "iou": row.pooled.iou, **asdict(row.pooled)},
        "metrics": {name: asdict(statistic) for name, statistic in row.statistics.items()},
    }
