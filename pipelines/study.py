"""A config, its manifest and its files put together, once, for every program that trains or scores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.data.cases import read_case
from medseg.data.dataset import Case
from medseg.data.download import open_manifest
from medseg.data.manifest import Manifest
from medseg.errors import ManifestError
from medseg.experiment import ExperimentConfig, check_against
from medseg.volume import Segmentation, Volume
from pipelines.console import Console
from pipelines.locations import find_manifest

if TYPE_CHECKING:
    import torch

    from medseg.training.loop import Training

CACHE_VARIABLE = "MEDSEG_CACHE"


@dataclass(frozen=True)
class Study:
    """What an experiment is done on: its cases, split, and where their files lie."""

    experiment: ExperimentConfig
    manifest: Manifest
    root: Path
    training: Sequence[Case]
    validation: Sequence[Case]

    def read(self, case: Case) -> tuple[str, Volume, Segmentation]:
        """A labelled case from its files."""
        data = read_case(self.manifest, case, self.root)
        if data.label is None:
            raise ManifestError(f"case {case.id} has no label; take it out of the fold, or add its label to cases.csv")
        return case.id, data.image, data.label


def cache_folder() -> Path:
    """Where fetched data sets are kept: $MEDSEG_CACHE, or .cache/medseg in the home folder."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "medseg")


def open_study(experiment: ExperimentConfig, data_root: Path | None, folder: Path | None = None) -> Study:
    """Finds manifest (or takes the one in `folder`) and files, and checks the config against them before any work."""
    manifest, root = open_manifest(folder or find_manifest(experiment.data.manifest), data_root, cache_folder())
    check_against(experiment, manifest)
    training, validation = manifest.split(experiment.data.fold)
    return Study(experiment, manifest, root, training, validation)


def build_training(study: Study, folder: Path, device: torch.device, console: Console) -> Training:
    """Reads and prepares the training cases, and builds network and loss; the seed decides the first weights."""
    import torch

    from medseg.data.loaders import Patches, training_case
    from medseg.data.preprocessing import prepare
    from medseg.inference.predictor import Predictor
    from medseg.losses import build_loss
    from medseg.reproducibility import seeded
    from medseg.training.loop import Training
    from medseg.training.validation import Validation

    config, labels = study.experiment, study.manifest.dataset.labels
    torch.set_num_threads(config.training.threads or os.cpu_count() or 1)
    cases = []
    with console.progress(len(study.training), "preparing cases") as steps:
        for case in study.training:
            case_id, image, label = study.read(case)
            cases.append(training_case(case_id, prepare(image, config.preprocessing, label), labels))
            steps.advance(1)
    torch.manual_seed(seeded(config.seed, "weights"))
    network = config.network.build(len(study.manifest.dataset.channels), labels.channels)
    validation = Validation(
        [lambda case=case: study.read(case) for case in study.validation],  # type: ignore[misc]
        lambda network: Predictor(network, labels, config.preprocessing, config.patch, config.inference, device),
    )
    return Training(
        network=network,
        loss=build_loss(config.loss, labels),
        patches=Patches(cases, config.patch, config.augmentation, config.seed),
        settings=config.training,
        device=device,
        folder=folder / "checkpoints",
        validate=validation if study.validation else None,
    )
