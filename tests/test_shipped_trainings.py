"""Every shipped experiment learns: a few epochs on some of its real data beat a stated chance level, label by label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch

from medseg.data.cases import read_case
from medseg.data.dataset import Case
from medseg.data.manifest import Manifest, read_manifest, write_manifest
from medseg.errors import ConfigError
from medseg.experiment import read_experiment
from medseg.networks import NETWORKS
from pipelines.console import Console
from pipelines.locations import find_manifest, shipped_configs
from pipelines.study import build_training, open_study

FOLDERS = {"axon_myelin": "axon_myelin_sem", "hippocampus": "hippocampus", "montgomery_lungs": "cxr_montgomery"}
# Crops around a hippocampus are so alike that its usual place alone has a Dice of 0.74, which no network beats within
# seconds: README's table says what minutes reach. There, chance is the label everywhere.
ALIKE = {"hippocampus"}
GENERATED = {"demo"}  # learns from phantoms, in the test of `medseg demo`
EXPERIMENTS = {name: path for name, path in shipped_configs().items() if name not in GENERATED}
FORMS = [(name, dims) for name, entry in NETWORKS if entry.__module__.startswith("medseg.") for dims in entry.dims()]
TRAINING_CASES, VALIDATION_CASES = 12, 4
STEPS = {2: 100, 3: 60}  # by axes; batches are larger in 3D, counted in voxels


class Silent:
    """Watches a training without a word."""

    def stepped(self, step: int, total: int, values: Mapping[str, float]) -> None: ...

    def validated(self, step: int, scores: Mapping[str, float]) -> None: ...

    def warned(self, message: str) -> None: ...

    def asks_to_stop(self) -> bool:
        return False


@pytest.mark.parametrize(("network", "dims"), FORMS)
def test_every_network_is_shipped_in_an_experiment(network: str, dims: int) -> None:
    shipped = {(one.name, one.spatial_dims) for one in (read_experiment(path).network for path in EXPERIMENTS.values())}
    assert (network, dims) in shipped, f"no config trains {network!r} in {dims}D on real data; add one to configs/"


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_few_epochs_beat_chance(name: str, real_data: Path, tmp_path: Path) -> None:
    """Through the training and the validation of `medseg train`, on fewer cases and for fewer steps."""
    steps = STEPS[read_experiment(EXPERIMENTS[name]).network.spatial_dims]
    short = ["training.max_minutes=null", f"training.total_steps={steps}", "training.workers=0"]
    experiment = read_experiment(EXPERIMENTS[name], short)
    data = experiment.data
    try:
        experiment.network.check_installed()
    except ConfigError as error:
        pytest.skip(str(error))
    root = real_data / FOLDERS[data.manifest]
    folder = write_manifest(_some_cases(data.manifest, data.fold), tmp_path / "manifest")
    training = build_training(open_study(experiment, root, folder), tmp_path, torch.device("cpu"), Console())
    training.folder.mkdir()
    training.run(steps, Silent())
    assert training.validate is not None
    scores = training.validate(training.network)
    for label, blind in chance(data.manifest, data.fold, root).items():
        how = max(blind, key=blind.__getitem__)
        found = f"{name}: Dice of {label} is {scores[f'dice_{label}']:.3f} after {steps} steps"
        assert scores[f"dice_{label}"] > blind[how], f"{found}; chance is {blind[how]:.3f}: {how}"


@cache
def _some_cases(manifest: str, fold: int | None) -> Manifest:
    """The first cases of both parts of a shipped manifest, a dozen to learn from."""
    whole = read_manifest(find_manifest(manifest))
    training, validation = whole.split(fold)
    return Manifest(whole.dataset, (*training[:TRAINING_CASES], *validation[:VALIDATION_CASES]), whole.folder)


@cache
def chance(manifest: str, fold: int | None, root: Path) -> dict[str, dict[str, float]]:
    """Label -> mean Dice, over the validation cases, of predictions that never look at the image.

    The label everywhere or, at each place, the label that most training cases have there. Places are shares of a case's
    length along each axis, since cases differ in size.
    """
    some = _some_cases(manifest, fold)
    training, validation = some.split(fold)
    known = list(_labels(training, some, root))
    labels = some.dataset.labels
    scores: dict[str, dict[str, list[float]]] = {name: {} for name in labels.names}
    for truth in _labels(validation, some, root):
        placed = np.stack([_stretched(label, truth.shape) for label in known])
        usual = np.array(labels.values)[np.argmax([(placed == value).sum(axis=0) for value in labels.values], axis=0)]
        for name, value in zip(labels.names, labels.values[1:], strict=True):
            blind = {"the label everywhere": np.ones_like(truth, dtype=bool)}
            if manifest not in ALIKE:
                blind["the usual label of each place"] = usual == value
            for how, guess in blind.items():
                scores[name].setdefault(how, []).append(_dice(guess, truth == value))
    return {name: {how: fmean(found) for how, found in ways.items()} for name, ways in scores.items()}


def _labels(cases: Sequence[Case], manifest: Manifest, root: Path) -> Iterator[np.ndarray]:
    for case in cases:
        label = read_case(manifest, case, root, verify=False).label
        assert label is not None
        yield label.array


def _stretched(label: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """A label on a grid of another size, each place from the nearest one."""
    return label[np.ix_(*(np.arange(new) * old // new for new, old in zip(shape, label.shape, strict=True)))]


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    """2 |A and B| / (|A| + |B|); every label of these sets occurs in every case."""
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())
