"""`medseg evaluate`: a model's scores on the cases of a manifest, on the grid of each source image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from medseg.errors import ManifestError, ModelError
from pipelines.console import Console


def evaluate(
    model: Path,
    manifest: str | None,
    fold: int | None,
    assignments: list[str],
    data_root: Path | None,
    output: Path | None,
    device: str,
) -> dict[str, Any]:
    """Without a manifest: the model's own and its validation fold. With one: a fold of it, or every labelled case."""
    from medseg.data.cases import read_case
    from medseg.data.dataset import Case
    from medseg.data.download import open_manifest
    from medseg.devices import choose_device
    from medseg.experiment import changed
    from medseg.trained_model import load_model
    from medseg.volume import Segmentation, Volume
    from pipelines.locations import find_manifest, output_folder
    from pipelines.scoring import Scoring, result_of
    from pipelines.study import cache_folder

    console, target = Console(), choose_device(device)
    trained = load_model(model)
    config = changed(trained.card.experiment, assignments)
    folder = find_manifest(manifest or config.data.manifest)
    opened, root = open_manifest(folder, data_root, cache_folder())
    labels = trained.card.dataset.labels
    if opened.dataset.labels.values != labels.values or opened.dataset.labels.kind != labels.kind:
        raise ManifestError(
            f"{folder}: labels {opened.dataset.labels.values} are not the model's {labels.values}; "
            "give a manifest with the same label values"
        )
    chosen = fold if fold is not None or manifest is not None else config.data.fold
    cases = opened.split(chosen)[1] if chosen is not None else opened.split(None)[0]
    console.say(f"{trained.card.title} on {opened.dataset.name}: {len(cases)} cases")

    def read(case: Case) -> tuple[str, Volume, Segmentation]:
        data = read_case(opened, case, root)
        if data.label is None:
            raise ModelError(f"case {case.id} has no label to compare with")
        return case.id, data.image, data.label

    predictor = trained.predictor(target, config)
    goal = output_folder(output or _beside(model) / f"evaluation-{opened.dataset.name}")
    scoring = Scoring(read, lambda image: trained.segment(image, predictor), labels, config.metrics)
    summary = scoring.write(scoring.run(cases, console), cases, goal, console)
    console.say(f"scores: {goal}")
    return result_of(summary, goal)


def _beside(model: Path) -> Path:
    """The folder that a model's folder lies in: of a run, the run's own."""
    return (model / "model" if (model / "model").is_dir() else model).parent
