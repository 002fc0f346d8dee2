"""A config, its manifest and its files put together, once, for every program that trains or scores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.data.cases import read_case
from medseg.data.dataset import Case
from medseg.data.download import open_manifest
from medseg.data.manifest import Manifest
from medseg.errors import ConfigError, ManifestError
from medseg.experiment import ExperimentConfig, changed, check_against
from medseg.tracking.names import flat
from medseg.volume import Segmentation, Volume
from pipelines.console import Console
from pipelines.locations import find_manifest

if TYPE_CHECKING:
    import torch
    from torch import nn

    from medseg.data.cache import Cache
    from medseg.data.loaders import TrainingCase
    from medseg.data.prepared_cases import PreparedCases
    from medseg.devices import World
    from medseg.losses import LossConfig
    from medseg.training.loop import Training
    from medseg.training.validation import Validation

CACHE_VARIABLE, LIMIT_VARIABLE = "MEDSEG_CACHE", "MEDSEG_CACHE_GB"
_LIMIT_GB = 100.0


@dataclass(frozen=True)
class Study:
    """What an experiment is done on: its cases, split, and where their files lie."""

    experiment: ExperimentConfig
    manifest: Manifest
    root: Path
    training: Sequence[Case]
    validation: Sequence[Case]

    def read(self, case: Case, verify: bool = True) -> tuple[str, Volume, Segmentation]:
        """A labelled case from its files, which must be those that the manifest was written for."""
        data = read_case(self.manifest, case, self.root, verify)
        if data.label is None:
            raise ManifestError(f"case {case.id} has no label; take it out of the fold, or add its label to cases.csv")
        return case.id, data.image, data.label


def cache_folder() -> Path:
    """Where fetched and prepared data are kept: $MEDSEG_CACHE, or .cache/medseg in the home folder."""
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "medseg")


def case_cache() -> Cache:
    """The cache of prepared cases, no larger than $MEDSEG_CACHE_GB. Raises ConfigError where that is no number."""
    from medseg.data.cache import Cache

    limit = os.environ.get(LIMIT_VARIABLE) or str(_LIMIT_GB)
    try:
        limit_bytes = int(float(limit) * 1e9)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"{LIMIT_VARIABLE}={limit!r} is no number of gigabytes; give one, such as 100") from error
    return Cache(cache_folder() / "prepared", limit_bytes)


def open_study(experiment: ExperimentConfig, data_root: Path | None, folder: Path | None = None) -> Study:
    """Finds manifest (or takes the one in `folder`) and files, and checks the config against them before any work."""
    manifest, root = open_manifest(folder or find_manifest(experiment.data.manifest), data_root, cache_folder())
    check_against(experiment, manifest)
    training, validation = experiment.data.split(manifest)
    return Study(experiment, manifest, root, training, validation)


def with_threads(study: Study, count: int) -> Study:
    """The study with its number of threads written down: the last bits of a result depend on it."""
    return replace(study, experiment=changed(study.experiment, [f"training.threads={count}"]))


def with_digests(study: Study) -> Study:
    """The study with the digests of the weights that it begins from written down: the same are asked for again."""
    config = study.experiment
    start = config.training.start and config.training.start.pinned()
    pinned = {
        "network": config.network.pinned(),
        "training": config.training.model_copy(update={"start": start}),
    }
    return replace(study, experiment=config.model_copy(update=pinned))


def build_training(
    study: Study,
    folder: Path,
    device: torch.device,
    console: Console,
    *,
    pretrained: bool = True,
    world: World | None = None,
) -> Training:
    """Reads and prepares the training cases, and builds network and loss; the seed decides the first weights.

    With `pretrained` they are those of the config's files, where it names any; a run that is resumed has its own.
    """
    import torch

    from medseg.data.laterality import laterality
    from medseg.data.loaders import Patches
    from medseg.devices import ALONE, set_determinism
    from medseg.losses import build_loss
    from medseg.reproducibility import seeded
    from medseg.training.loop import Training
    from medseg.training.start import begin_from

    config, labels, world = study.experiment, study.manifest.dataset.labels, world or ALONE
    if config.training.threads is not None:
        torch.set_num_threads(config.training.threads)
    set_determinism(device, exact=config.training.determinism == "exact")
    torch.manual_seed(seeded(config.seed, "weights"))
    network = config.build_network(len(study.manifest.dataset.channels), labels)
    if pretrained:
        config.network.load_pretrained(network)
        if config.training.start is not None:
            console.say(str(begin_from(network, config.training.start)))
    validation = _validation(study, network, device, world)
    if not world.is_first:
        world.wait()  # the first process fills the cache
    cases = _prepared(study, console)
    if world.is_first:
        world.wait()
    return Training(
        network=network,
        loss=build_loss(_weighed(study, cases, console), labels),
        labels=labels,
        patches=Patches(
            cases,
            config.patch,
            config.augmentation,
            config.seed,
            laterality(config.preprocessing, config.patch, labels),
            changed_later=config.training.augment_on == "device",
            annotated=_annotated(study),
        ),
        settings=config.training,
        device=device,
        folder=folder / "checkpoints",
        world=world,
        validate=validation if study.validation else None,
    )


def _annotated(study: Study) -> torch.Tensor | None:
    """What was looked for in each training case, `(cases, K)`; None where that is everything in all of them."""
    import torch

    labels = study.manifest.dataset.labels
    annotated = torch.tensor([labels.annotated(case.annotated) for case in study.training])
    return None if bool(annotated.all()) else annotated


def _prepared(study: Study, console: Console) -> PreparedCases:
    """The training cases, in the cache: what it does not hold is read and prepared on all cores."""
    from medseg.data.prepared_cases import prepared_cases
    from medseg.devices import usable_cores

    settings, workers = study.experiment.preprocessing, min(usable_cores(), len(study.training))
    with console.progress(len(study.training), "preparing cases") as steps:
        return prepared_cases(
            study.manifest, study.training, study.root, settings, case_cache(), workers, done=steps.advance
        )


def _weighed(study: Study, cases: Sequence[TrainingCase], console: Console) -> LossConfig:
    """The loss with the weights that follow from the voxels of the training cases, which the console tells."""
    from medseg.losses import count_voxels

    loss, labels = study.experiment.loss, study.manifest.dataset.labels
    if not loss.needs_counts:
        return loss
    annotated = [labels.annotated(case.annotated) for case in study.training]
    weighed = loss.weighed(count_voxels((case.label.numpy() for case in cases), labels, annotated))
    for asked, found in zip(loss.parts(), weighed.parts(), strict=True):
        before = flat(asked.loss.model_dump(mode="json"))
        for key, value in flat(found.loss.model_dump(mode="json")).items():
            if value != before[key]:
                console.say(f"loss {asked.loss.name}: {key} by {before[key]} in the training cases: {value}")
    return weighed


def _validation(study: Study, network: nn.Module, device: torch.device, world: World) -> Validation:
    """Whole volumes through the predictor; one is built at once, so that settings it refuses are refused now."""
    from medseg.inference.predictor import Predictor
    from medseg.training.validation import Validation

    config, labels = study.experiment, study.manifest.dataset.labels

    def predictor(network: nn.Module) -> Predictor:
        return Predictor(network, labels, config.preprocessing, config.patch, config.inference, device)

    predictor(network)
    cases = [lambda case=case: study.read(case, verify=False) for case in study.validation]
    return Validation(cases, predictor, [*labels.names, *labels.regions], world)
