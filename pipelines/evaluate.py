"""`medseg evaluate`: a model's scores on the cases of a manifest, on the grid of each source image."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.errors import ManifestError
from pipelines.console import Console
from pipelines.model_use import ModelUse

if TYPE_CHECKING:
    from medseg.data.manifest import Case, Manifest
    from medseg.labels import LabelSet
    from medseg.trained_model import ModelCard

EVALUATION = "evaluation.json"


def evaluate(
    model: ModelUse, manifest: str | None, fold: int | None, data_root: Path | None, output: Path | None
) -> dict[str, Any]:
    """Without a manifest: the model's own and its validation fold. With one: a fold of it, or every labelled case."""
    from medseg.data.download import open_manifest
    from medseg.io.atomic import atomic_write_text
    from pipelines.locations import find_manifest, output_folder
    from pipelines.scoring import Scoring, result_of
    from pipelines.study import Study, cache_folder

    console = Console()
    trained, segment = model.open()
    card, config = trained.card, trained.card.experiment
    opened, root = open_manifest(find_manifest(manifest or config.data.manifest), data_root, cache_folder())
    _check_labels(opened, card.dataset.labels)
    is_own = fold is None and manifest is None
    chosen = config.data.fold if is_own and config.data.leave_out is None else fold
    if is_own and config.data.validates:
        cases = config.data.split(opened)[1]
    else:
        cases = opened.split(chosen)[1] if chosen is not None else opened.split(None)[0]
    console.say(f"{card.title} on {opened.dataset.name}: {len(cases)} cases")
    facts = {
        "model": card.title,
        "set": list(model.assignments),
        "manifest": opened.dataset.name,
        "manifest_digest": opened.digest,
        "fold": chosen,
        "seen_in_training": seen_in_training(card, opened, cases),
    }
    if facts["seen_in_training"] is not False:
        console.say(f"warning: {_warning(facts['seen_in_training'] is None)}")
    part = f"fold{chosen}" if chosen is not None else "left-out" if is_own and config.data.validates else "all"
    goal = output_folder(output or _beside(model.folder) / f"evaluation-{opened.dataset.name}-{part}")
    study = Study(config, opened, root, training=(), validation=cases)
    scoring = Scoring(study.read, segment, opened.dataset.labels, config.metrics)
    summary = scoring.write(scoring.run(cases, console), cases, goal, console)
    atomic_write_text(goal / EVALUATION, json.dumps({"schema_version": 1, **facts}, indent=2) + "\n")
    console.say(f"scores: {goal}")
    return {**result_of(summary, goal), "fold": chosen, "seen_in_training": facts["seen_in_training"]}


def seen_in_training(card: ModelCard, manifest: Manifest, cases: Sequence[Case]) -> bool | None:
    """Whether the model learned from any of the cases; None, unknown, where it was trained on another manifest."""
    if manifest.digest != card.manifest_digest:
        return None
    trained_on = {case.id for case in card.experiment.data.split(manifest)[0]}
    return any(case.id in trained_on for case in cases)


def _warning(is_unknown: bool) -> str:
    if is_unknown:
        return "the model was trained on another manifest; if it holds some of these cases, their scores flatter"
    return "the model was trained on some of these cases, so their scores say little of new ones"


def _check_labels(manifest: Manifest, ours: LabelSet) -> None:
    """Raises ManifestError where the manifest's labels have other values or names, or share the grid otherwise."""
    theirs = manifest.dataset.labels
    if (theirs.values, theirs.names, theirs.kind) != (ours.values, ours.names, ours.kind):
        raise ManifestError(
            f"{manifest.folder}: labels {theirs.values} ({', '.join(theirs.names)}; {theirs.kind}) are not the model's "
            f"{ours.values} ({', '.join(ours.names)}; {ours.kind}); give a manifest with the same labels"
        )


def _beside(model: Path) -> Path:
    """The folder that a model's folder lies in: of a run, the run's own."""
    return (model / "model" if (model / "model").is_dir() else model).resolve().parent
