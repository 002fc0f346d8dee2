"""A trained model as a folder: weights, the experiment that made them, labels, and what it may be shown."""

from __future__ import annotations

import json
import secrets
import shutil
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from medseg.config import Settings, validate
from medseg.data.manifest import DatasetInfo
from medseg.errors import ConfigError, ModelError, WriteError
from medseg.experiment import ExperimentConfig, changed, check_laterality
from medseg.geometry import Geometry
from medseg.inference.settings import Average
from medseg.labels import LabelSet
from medseg.reproducibility import weights_digest
from medseg.volume import Segmentation, Volume

if TYPE_CHECKING:
    import torch
    from torch import nn

    from medseg.inference.predictor import Predictor

CARD, WEIGHTS = "model.json", "weights.pt"
CHANGEABLE = ("inference", "metrics", "postprocessing")  # parts of an experiment that the weights do not depend on

# Modalities of images, DICOM PS3.3 C.7.3.1.1.1, and what data sets call two of them.
_MODALITIES = {code: code for code in ("CR", "CT", "DX", "MG", "MR", "NM", "OPT", "PT", "RF", "SM", "US", "XA", "XC")}
_MODALITIES |= {"MRI": "MR", "PET": "PT"}


class EnsembleSettings(Settings):
    """Networks that were trained apart and are used as one."""

    members: tuple[str, ...] = Field(min_length=1)  # each network's title
    average: Average = "logits"


class ModelCard(Settings):
    """What stands in model.json beside the weights."""

    schema_version: Literal[1] = 1
    name: str
    version: str
    medseg_version: str
    experiment: ExperimentConfig
    dataset: DatasetInfo
    manifest_digest: str
    training_cases: int
    total_steps: int
    weights_sha256: str
    ensemble: EnsembleSettings | None = None  # of several networks; the weights then hold `members.0.` and so on
    intended_use: str = "for research use"

    @property
    def title(self) -> str:
        """Name, version and the first signs of the weights' digest: what every output carries."""
        return f"{self.name} {self.version} ({self.weights_sha256[:12]})"


class TrainedModel:
    """Weights with everything needed to use them."""

    def __init__(self, card: ModelCard, weights: Mapping[str, torch.Tensor]) -> None:
        self.card, self.weights = card, weights

    def adapted(self, assignments: Sequence[str]) -> TrainedModel:
        """The same weights, used differently after assignments such as `inference.flips=[0]`.

        Raises ConfigError where one names a part that the weights were made for: preprocessing, patch, network ...
        """
        for assignment in assignments:
            part = assignment.partition("=")[0].strip().split(".")[0]
            if part not in CHANGEABLE:
                raise ConfigError(
                    f"--set {assignment!r}: {part} is fixed once a model is trained; set keys of "
                    f"{', '.join(CHANGEABLE)} only, or train a model of its own"
                )
        experiment = changed(self.card.experiment, list(assignments))
        return TrainedModel(self.card.model_copy(update={"experiment": experiment}), self.weights)

    def predictor(self, device: torch.device) -> Predictor:
        """A predictor on a device.

        Raises ConfigError for settings that do not fit the labels, ModelError for weights that do not fit the network.
        """
        from medseg.inference.predictor import Predictor

        config, labels = self.card.experiment, self.card.dataset.labels
        check_laterality(config, labels)
        _check_postprocessing(config, labels)
        network = self._network()
        try:
            network.load_state_dict(dict(self.weights))
        except RuntimeError as error:
            raise ModelError(
                f"{self.card.title}: the weights do not fit network {config.network.name!r} as the card configures it; "
                "copy the model folder again"
            ) from error
        return Predictor(network, labels, config.preprocessing, config.patch, config.inference, device)

    def _network(self) -> nn.Module:
        """Untrained, as the card describes it."""
        config, dataset, ensemble = self.card.experiment, self.card.dataset, self.card.ensemble
        if ensemble is None:
            return config.build_network(len(dataset.channels), dataset.labels)
        from medseg.inference.ensemble import Ensemble

        members = [config.build_network(len(dataset.channels), dataset.labels) for _ in ensemble.members]
        return Ensemble(members, dataset.labels, ensemble.average)

    def check_modality(self, volume: Volume) -> None:
        """Raises ModelError where a DICOM image is of another modality than those that the channels are named after.

        Channels with other names (T1, FLAIR) and files that tell no modality (NIfTI) say nothing, and pass.
        """
        channels = self.card.dataset.channels
        trained = {_MODALITIES[name.upper()] for name in channels if name.upper() in _MODALITIES}
        found = volume.provenance.modality
        if found in _MODALITIES.values() and trained and found not in trained:
            raise ModelError(
                f"{volume.provenance.source}: its modality is {found}, the model was trained on {', '.join(channels)}; "
                f"choose another series, or say with --modality {found} that this one is meant"
            )

    def segment(self, volume: Volume, predictor: Predictor) -> Segmentation:
        """Predicts, post-processes, signs with the model's title. Raises ModelError where channels are missing."""
        wanted = list(self.card.dataset.channels)
        if volume.channels != len(wanted):
            raise ModelError(
                f"{volume.provenance.source}: has {volume.channels} channels, "
                f"the model needs {len(wanted)} ({', '.join(wanted)}); give a file with these channels in this order"
            )
        return self.decide(predictor.probabilities(volume), volume, predictor)

    def decide(self, probabilities: np.ndarray, volume: Volume, predictor: Predictor) -> Segmentation:
        """What `segment` makes of the predictor's probabilities for the volume."""
        segmentation = predictor.decide(probabilities, volume, made_by=self.card.title)
        for step in self.card.experiment.postprocessing:
            segmentation = step.apply(segmentation)
        return segmentation

    def save(self, folder: Path) -> Path:
        """Writes the folder in one move: whole, or what was there before stays. Raises WriteError."""
        import torch

        buffer = BytesIO()  # torch reports a full disk as a RuntimeError; written by us, it is an OSError
        torch.save(dict(self.weights), buffer)
        mark = secrets.token_hex(6)
        fresh, old = folder.with_name(f".{folder.name}-{mark}"), folder.with_name(f".{folder.name}-{mark}-old")
        try:
            fresh.mkdir(parents=True)
            (fresh / WEIGHTS).write_bytes(buffer.getvalue())
            (fresh / CARD).write_text(self.card.model_dump_json(indent=2) + "\n", encoding="utf-8")
            _replace(folder, fresh, old)
        except OSError as error:
            raise WriteError(
                f"{folder}: the model could not be written ({error.strerror}); "
                "check the folder, its rights and its space"
            ) from error
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.rmtree(old, ignore_errors=True)
        return folder


def _replace(folder: Path, fresh: Path, old: Path) -> None:
    """Puts `fresh` in the place of `folder`, whose content goes to `old`, or comes back where that fails."""
    had_one = folder.is_dir()
    if had_one:
        folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        if had_one:
            old.rename(folder)
        raise


def ensemble_of(models: Sequence[TrainedModel], name: str, version: str, average: Average) -> TrainedModel:
    """Models of one experiment, which may differ in fold, seed and training alone, as one model.

    Raises ModelError for models that cannot be used as one.
    """
    first = models[0].card
    weights: dict[str, torch.Tensor] = {}
    for number, model in enumerate(models):
        differing = _differing(model.card, first) or (["ensemble"] if first.ensemble is not None else [])
        if differing:
            raise ModelError(
                f"{model.card.title} and {first.title} differ in {', '.join(differing)}, or are ensembles themselves; "
                "join models of one experiment"
            )
        weights |= {f"members.{number}.{key}": tensor for key, tensor in model.weights.items()}
    everywhere = first.experiment.data.model_copy(update={"fold": None, "leave_out": None})
    content = first.model_copy(
        update={
            "name": name,
            "version": version,
            "experiment": first.experiment.model_copy(update={"data": everywhere}),
            "training_cases": max(model.card.training_cases for model in models),
            "weights_sha256": weights_digest(weights),
            "ensemble": EnsembleSettings(members=tuple(model.card.title for model in models), average=average),
        }
    )
    return TrainedModel(content, weights)


def _differing(one: ModelCard, other: ModelCard) -> list[str]:
    """What keeps two models from being used as one."""
    of_card = [
        part for part in ("dataset", "manifest_digest", "ensemble") if getattr(one, part) != getattr(other, part)
    ]
    shared = ("preprocessing", "patch", "network", "inference", "metrics", "postprocessing")
    return of_card + [part for part in shared if getattr(one.experiment, part) != getattr(other.experiment, part)]


def _check_postprocessing(config: ExperimentConfig, labels: LabelSet) -> None:
    """Does each step to one empty voxel, so that one which the labels contradict is refused before any work."""
    shape = (1,) * len(config.patch.box)
    array = np.zeros(shape, np.uint8) if labels.is_exclusive else np.zeros((len(labels.labels), *shape), bool)
    nothing = Segmentation(array, Geometry.from_spacing(shape, (1.0,) * len(shape)), labels)
    for step in config.postprocessing:
        step.apply(nothing)


def load_model(folder: Path) -> TrainedModel:
    """The model in a folder, or in the `model` folder of a run. Raises ModelError where it is absent or damaged."""
    import torch

    from medseg.training.checkpoint import DAMAGED

    home = folder / "model" if (folder / "model" / CARD).is_file() else folder
    card = _read_card(home)
    try:
        weights = torch.load(home / WEIGHTS, map_location="cpu", weights_only=True)
    except (OSError, *DAMAGED) as error:
        raise ModelError(f"{home / WEIGHTS}: is missing or damaged; copy the model folder again") from error
    if not isinstance(weights, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in weights.values()):
        raise ModelError(f"{home / WEIGHTS}: holds something else than tensors by name; copy the model folder again")
    if weights_digest(weights) != card.weights_sha256:
        raise ModelError(f"{home / WEIGHTS}: does not match the digest in {CARD}; copy the model folder again")
    return TrainedModel(card, weights)


def _read_card(home: Path) -> ModelCard:
    try:
        content: Any = json.loads((home / CARD).read_text(encoding="utf-8"))
        return validate(ModelCard, _known_version(content, home / CARD), str(home / CARD))
    except (FileNotFoundError, NotADirectoryError) as error:
        if (home / "checkpoints").is_dir():
            raise ModelError(f"{home}: this run has not ended; go on with medseg resume {home}") from error
        raise ModelError(
            f"{home}: holds no trained model ({CARD} is missing); give a run's or model's folder"
        ) from error
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise ModelError(f"{home / CARD}: cannot be read ({error}); copy the model folder again") from error
    except ConfigError as error:
        raise ModelError(
            f"{error}; copy the model folder again, update medseg, or install the package that adds what is not known"
        ) from error


def _known_version(content: Any, where: Path) -> dict[str, Any]:
    """The card's content. Raises ModelError where it is no card, or one of a later medseg."""
    if not isinstance(content, dict):
        raise ModelError(f"{where}: holds {type(content).__name__}, no model card; copy the model folder again")
    version = content.get("schema_version", 1)
    if version != 1:
        raise ModelError(f"{where}: schema_version {version!r} is not known; this medseg reads 1, update medseg")
    return content
