"""Each case as the network saw it that was not trained on it: scores, and the post-processing that they ask for."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from medseg.data.cases import read_truth
from medseg.data.dataset import Case
from medseg.errors import DataError, ManifestError
from medseg.evaluation import (
    FailedCase,
    RepeatedMean,
    Scores,
    Summary,
    difference_of,
    distance_table,
    score,
    summarise,
    summary_table,
    write_scores,
)
from medseg.labels import LabelSet
from medseg.metrics import MetricsConfig
from medseg.postprocessing import FillHolesConfig, KeepLargestConfig, PostprocessingConfig
from medseg.volume import Segmentation
from pipelines.console import Console
from pipelines.run import PREDICTIONS
from pipelines.scoring import kept_prediction, result_of
from pipelines.study import Study

QUICK = MetricsConfig(distances=False)  # to compare steps, of which Dice decides


@dataclass(frozen=True)
class Trial:
    """A step that was tried on top of those kept so far, what it changed in Dice, and whether it is kept."""

    step: PostprocessingConfig
    gain: RepeatedMean | None
    is_kept: bool


@dataclass(frozen=True)
class OutOfFold:
    """What a cross-validation found."""

    summary: Summary
    folder: Path
    trials: Sequence[Trial]
    given: Sequence[PostprocessingConfig]  # steps of the experiment itself, which predictions have gone through

    @property
    def means(self) -> dict[str, float]:
        return self.summary.means()

    @property
    def assignments(self) -> list[str]:
        """The post-processing of the joined model, as `--set` takes it."""
        steps = [*self.given, *(trial.step for trial in self.trials if trial.is_kept)]
        return [f"postprocessing={json.dumps([step.model_dump(mode='json') for step in steps])}"]

    @property
    def content(self) -> dict[str, Any]:
        """For JSON."""
        tried = [
            {"step": one.step.model_dump(mode="json"), "gain": one.gain and one.gain.value, "kept": one.is_kept}
            for one in self.trials
        ]
        return {"out_of_fold": result_of(self.summary, self.folder), "postprocessing": tried}


def out_of_fold(studies: Mapping[Path, Study], folder: Path, console: Console) -> OutOfFold:
    """Scores the kept predictions of all runs and tries post-processing on them, without the network or the images.

    A step is kept where the 95 % interval of its paired gain in foreground Dice lies above 0. The scores are those of
    the predictions as they are, since steps chosen by them would flatter.
    """
    first = next(iter(studies.values()))
    labels, settings = first.manifest.dataset.labels, first.experiment.metrics
    pairs = [_Pair(study, run / PREDICTIONS, case) for run, study in studies.items() for case in study.validation]
    scores = _scored(pairs, labels, settings, console)
    summary = summarise(scores)
    write_scores(folder, scores, summary)
    for table in (summary_table(summary), distance_table(summary)):
        console.table(table.headers, table.rows)
    dice = {one.case: one.foreground() for one in scores.cases}
    trials = list(_tried(pairs, labels, dice, console))
    return OutOfFold(summary, folder, trials, first.experiment.postprocessing)


@dataclass(frozen=True)
class _Pair:
    """A case, and where its prediction is kept."""

    study: Study
    predictions: Path
    case: Case

    def read(self) -> tuple[Segmentation, Segmentation]:
        """Prediction and truth."""
        truth = read_truth(self.study.manifest.dataset, self.case, self.study.root)
        assert truth is not None  # a case without a label validates nothing
        return kept_prediction(self.predictions, self.case.id, truth), truth


def _scored(
    pairs: Sequence[_Pair],
    labels: LabelSet,
    settings: MetricsConfig,
    console: Console,
    change: Callable[[Segmentation], Segmentation] = lambda found: found,
) -> Scores:
    scored, failed = [], []
    with console.progress(len(pairs), "scoring cases") as steps:
        for pair in pairs:
            try:
                found, truth = pair.read()
                scored.append(score(pair.case.id, change(found), truth, settings))
            except (DataError, ManifestError) as error:
                failed.append(FailedCase(pair.case.id, str(error)))
            steps.advance(1)
    return Scores(labels, tuple(scored), tuple(failed), settings)


def _tried(
    pairs: Sequence[_Pair], labels: LabelSet, dice: Mapping[str, float | None], console: Console
) -> Iterator[Trial]:
    """Each candidate in turn, on top of those kept before it."""
    kept: list[PostprocessingConfig] = []
    for step in candidates(labels):
        steps = [*kept, step]
        scores = _scored(pairs, labels, QUICK, console, partial(_through, steps))
        after = {one.case: one.foreground() for one in scores.cases}
        gain = difference_of([dice], [after])
        is_kept = gain is not None and gain.interval is not None and gain.interval[0] > 0
        if is_kept:
            kept, dice = steps, after
        told = "no case has a Dice" if gain is None else f"{gain.value:+.4f} Dice"
        console.say(f"{_described(step)}: {told}, {'kept' if is_kept else 'left out'}")
        yield Trial(step, gain, is_kept)


def candidates(labels: LabelSet) -> list[PostprocessingConfig]:
    """Steps without a number to choose: the largest component and no holes, label by label."""
    names = labels.names
    largest = [KeepLargestConfig(labels=(name,)) for name in names]
    return [*largest, *(FillHolesConfig(labels=(name,)) for name in names)]


def _described(step: PostprocessingConfig) -> str:
    labels = getattr(step, "labels", None)
    return f"{step.name} of {', '.join(labels)}" if labels else step.name


def _through(steps: Sequence[PostprocessingConfig], found: Segmentation) -> Segmentation:
    for step in steps:
        found = step.apply(found)
    return found
