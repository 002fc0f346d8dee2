"""`medseg pseudo-label`: what a model is sure of on cases without a label joins the next round of training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg.data.cases import read_case
from medseg.data.dataset import Case
from medseg.data.download import open_manifest
from medseg.data.manifest import DATASET, Manifest, write_manifest
from medseg.errors import ConfigError, DataError, ManifestError, ModelError
from medseg.labels import LabelSet
from medseg.volume import Segmentation, Volume, digest
from pipelines.console import Console
from pipelines.locations import find_manifest
from pipelines.model_use import ModelUse
from pipelines.study import cache_folder

if TYPE_CHECKING:
    from medseg.inference.predictor import Predictor
    from medseg.trained_model import TrainedModel

SOURCE, SURENESS = "label_source", "sure_share"  # columns of cases.csv: who labelled a case, and how sure
TRUTH = "truth"


@dataclass(frozen=True)
class Demands:
    """What a prediction must be to be learned from."""

    confidence: float = 0.9  # of a voxel, or it is ignored
    share: float = 0.9  # of a case's foreground voxels that are so sure, or the case is left out


@dataclass(frozen=True)
class Opinion:
    """A prediction whose unsure voxels are ignored, and the share of its foreground that it is sure of."""

    label: Segmentation
    sure_share: float


def pseudo_label(model: ModelUse, manifest: str, data_root: Path, output: Path, demands: Demands) -> dict[str, Any]:
    """Labels the unlabelled cases of a manifest where the model is sure, and writes a manifest of all that has a label.

    `output` must lie in the data root, from which a manifest's paths start. Folds stay; cases labelled here belong to
    none, so that they are always trained on and never scored.
    """
    opened, root = open_manifest(find_manifest(manifest), data_root, cache_folder())
    place = _place(output, root)
    if (output / DATASET).exists():
        raise ConfigError(f"--output {output}: holds a manifest already; give another folder")
    trained, predictor = model.predictor()
    labels = _with_ignore(opened.dataset.labels)
    _check(trained, opened)
    waiting = [case for case in opened.cases if case.label is None]
    if not waiting:
        raise ManifestError(f"{opened.folder}: every case has a label; there is nothing to add")
    console = Console()
    console.say(f"{trained.card.title} on {len(waiting)} cases of {opened.dataset.name} without a label")
    added, unsure, failed = list[Case](), dict[str, float](), dict[str, str]()
    with console.progress(len(waiting), "labelling") as steps:
        for case in waiting:
            try:
                image = read_case(opened, case, root, verify=True).image
                found = opinion(trained, predictor, image, labels, demands)
            except (DataError, ManifestError, ModelError) as error:
                failed[case.id] = str(error)
            else:
                if found.sure_share < demands.share:
                    unsure[case.id] = found.sure_share
                else:
                    added.append(_kept(case, found, root / place, place, trained.card.title))
            steps.advance(1, case.id)
    given = {SOURCE: TRUTH, SURENESS: "1"}
    known = [replace(case, columns={**case.columns, **given}) for case in opened.cases if case.label is not None]
    dataset = opened.dataset.model_copy(
        update={"labels": labels, "name": f"{opened.dataset.name}_pseudo", "fetched_as": None, "download": None}
    )
    written = write_manifest(Manifest(dataset, (*known, *added), output), output)
    console.say(f"{len(added)} cases labelled, {len(unsure)} left out as unsure, {len(failed)} failed: {written}")
    if failed and not added:
        raise DataError(f"no case could be labelled: {'; '.join(list(failed.values())[:3])}")
    return {"manifest": written, "labelled": [case.id for case in added], "unsure": unsure, "failed": failed}


def opinion(trained: TrainedModel, predictor: Predictor, image: Volume, labels: LabelSet, demands: Demands) -> Opinion:
    """What the model says of an image where it is sure: a voxel's highest probability decides. 1 for no foreground."""
    probabilities = predictor.probabilities(image)
    sure = probabilities.max(axis=0) >= demands.confidence
    found = trained.decide(probabilities, image, predictor)
    foreground = found.array != 0
    share = float(sure[foreground].mean()) if foreground.any() else float(sure.mean())
    assert labels.ignore is not None
    values = np.where(sure, found.array, labels.ignore).astype(np.int32)
    return Opinion(Segmentation(values, image.geometry, labels, found.provenance), share)


def _kept(case: Case, found: Opinion, folder: Path, place: Path, title: str) -> Case:
    """The case with its new label, which is written."""
    from medseg.io import write_nifti, write_picture

    folder.mkdir(parents=True, exist_ok=True)
    is_picture = found.label.geometry.unit == "px"
    name = f"{case.id}.png" if is_picture else f"{case.id}.nii.gz"
    (write_picture if is_picture else write_nifti)(found.label, folder / name)
    columns = {**case.columns, SOURCE: title, SURENESS: f"{found.sure_share:.4f}"}
    path = (place / name).as_posix()
    label_digest = digest(found.label.array, found.label.geometry)
    return replace(case, fold=None, label=path, label_digest=label_digest, columns=columns, annotated=None)


def _place(output: Path, root: Path) -> Path:
    """Where labels go, relative to the data root. Raises ConfigError for a folder outside."""
    try:
        return output.resolve().relative_to(root.resolve()) / "labels"
    except ValueError as error:
        raise ConfigError(
            f"--output {output}: lies outside the data root {root}, from which a manifest's paths start; give a folder "
            "in it"
        ) from error


def _with_ignore(labels: LabelSet) -> LabelSet:
    """The labels with a value for voxels that nobody is sure of. Raises ConfigError where labels overlap."""
    if not labels.is_exclusive:
        raise ConfigError("pseudo-label: overlapping labels have no value for what is not sure; label them yourself")
    return labels if labels.ignore is not None else labels.model_copy(update={"ignore": max(labels.values) + 1})


def _check(trained: TrainedModel, manifest: Manifest) -> None:
    """Raises ManifestError where model and manifest speak of other labels or channels."""
    card, dataset = trained.card.dataset, manifest.dataset
    if (card.labels.values, card.labels.names) != (dataset.labels.values, dataset.labels.names):
        raise ManifestError(f"{manifest.folder}: its labels are not those of {trained.card.title}")
    if card.channels != dataset.channels:
        raise ManifestError(f"{manifest.folder}: its channels are not those of {trained.card.title}")
