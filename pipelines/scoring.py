"""Scores a model on labelled cases and leaves what a person looks at: tables, files, pictures of the worst."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from medseg.data.dataset import Case
from medseg.errors import DataError, ManifestError, MedsegError, ModelError, ReadError, WriteError
from medseg.evaluation import (
    CaseScores,
    FailedCase,
    Scores,
    Summary,
    case_table,
    distance_table,
    score,
    summarise,
    summary_content,
    summary_table,
    write_scores,
)
from medseg.io.atomic import atomic_write_bytes
from medseg.labels import LabelSet
from medseg.metrics import MetricsConfig
from medseg.pictures import overlay
from medseg.volume import Segmentation, Volume
from pipelines.console import Console

PICTURES = 4  # of the worst cases
Read = Callable[[Case], tuple[str, Volume, Segmentation]]


@dataclass(frozen=True)
class Scoring:
    """How cases are read, segmented and measured, and the folder that keeps the predictions, where there is one."""

    read: Read
    segment: Callable[[Volume], Segmentation]
    labels: LabelSet
    settings: MetricsConfig
    predictions: Path | None = None

    def run(self, cases: Sequence[Case], console: Console) -> Scores:
        """Scores every case; one that cannot be read or compared is kept with its reason, and the rest go on."""
        scored: list[CaseScores] = []
        failed: list[FailedCase] = []
        with console.progress(len(cases), "scoring cases") as steps:
            for case in cases:
                try:
                    case_id, image, truth = self.read(case)
                    found = self.segment(image)
                    if self.predictions is not None:
                        keep_prediction(self.predictions, case_id, found)
                    scored.append(score(case_id, found, truth, self.settings))
                except (DataError, ManifestError, ModelError) as error:
                    failed.append(FailedCase(case.id, str(error)))
                steps.advance(1)
        return Scores(self.labels, tuple(scored), tuple(failed), self.settings)

    def write(self, scores: Scores, cases: Sequence[Case], folder: Path, console: Console) -> Summary:
        """Writes scores.csv, summary.json and pictures of the worst cases into `folder`, and prints the table.

        Pictures of an earlier scoring into the same folder go first: none is left that the new scores do not rank.
        """
        summary = summarise(scores)
        _remove_pictures(folder)
        write_scores(folder, scores, summary)
        by_id = {case.id: case for case in cases}
        for rank, worst in enumerate(scores.worst_first()[:PICTURES], start=1):
            _, image, truth = self.read(by_id[worst.case])
            dice = worst.foreground()
            caption = f"{worst.case}  Dice {dice:.3f}" if dice is not None else worst.case
            picture = overlay(image, truth, self.segment(image), caption)
            atomic_write_bytes(folder / f"worst_{rank}_{worst.case}.png", picture)
        for table in (summary_table(summary), distance_table(summary)):
            console.table(table.headers, table.rows)
        if scores.failed:
            table = case_table(scores, limit=len(scores.failed))
            console.table(table.headers, table.rows, title="cases that could not be scored")
        return summary


def keep_prediction(folder: Path, case_id: str, segmentation: Segmentation) -> Path:
    """Writes the array of a segmentation, from which other scores can be taken without the network."""
    import numpy as np

    buffer = BytesIO()
    np.savez_compressed(buffer, label=segmentation.array)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{folder}: cannot be made ({error.strerror}); choose another --output") from error
    return atomic_write_bytes(folder / f"{case_id}.npz", buffer.getvalue())


def kept_prediction(folder: Path, case_id: str, truth: Segmentation) -> Segmentation:
    """A kept segmentation, on the grid of its truth. Raises ReadError where it is absent or damaged."""
    import numpy as np

    path = folder / f"{case_id}.npz"
    try:
        with np.load(path, allow_pickle=False) as arrays:
            array = arrays["label"]
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise ReadError(f"{path}: is missing or damaged; score the run again with medseg evaluate") from error
    return Segmentation(array, truth.geometry, truth.labels)


def _remove_pictures(folder: Path) -> None:
    for picture in sorted(folder.glob("worst_*.png")):
        try:
            picture.unlink()
        except OSError as error:
            raise WriteError(
                f"{picture}: an earlier picture cannot be removed ({error.strerror}); check its rights"
            ) from error


def result_of(summary: Summary, folder: Path) -> dict[str, Any]:
    """What a program answers. Raises MedsegError where no case could be scored."""
    if summary.cases == 0:
        reasons = "; ".join(failed.reason for failed in summary.failed[:3]) or "the fold has no labelled case"
        raise MedsegError(f"no case could be scored: {reasons}")
    dice = summary.foreground.statistics["dice"]
    return {"folder": folder, "mean_foreground_dice": dice.mean, **summary_content(summary)}
