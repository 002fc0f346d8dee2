"""One experiment as one file: the settings of every part, added up and checked against one another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from medseg.config import Settings, apply_assignments, merge, read_yaml, validate
from medseg.data.augmentation import Augmentation
from medseg.data.dataset import Case
from medseg.data.manifest import Manifest
from medseg.data.patches import PatchSettings
from medseg.data.preprocessing import Preprocessing
from medseg.errors import ConfigError
from medseg.inference.settings import InferenceSettings
from medseg.labels import LabelSet
from medseg.losses import LOSSES, LossConfig
from medseg.losses.dice_ce import DiceCEConfig
from medseg.metrics import MetricsConfig
from medseg.networks import NETWORKS, NetworkConfig
from medseg.postprocessing import POSTPROCESSING, PostprocessingConfig
from medseg.tracking import TrackingConfig
from medseg.training.settings import TrainingSettings

if TYPE_CHECKING:
    from torch import nn

SCHEMA_VERSION = 1


class LeaveOut(Settings):
    """The cases with a value in a column of cases.csv: a site, scanner or protocol."""

    column: str
    value: str


class DataSettings(Settings):
    """On what: a manifest by name or path, and the fold, or the domain, that validates."""

    manifest: str
    fold: int | None = 0  # the validation fold; null trains on every case and validates on none
    leave_out: LeaveOut | None = None  # a domain that validates in place of a fold

    @property
    def validates(self) -> bool:
        """Whether cases are kept back from training."""
        return self.leave_out is not None or self.fold is not None

    @property
    def part(self) -> str:
        """What validates, for people."""
        return f"fold {self.fold}" if self.leave_out is None else f"{self.leave_out.column} {self.leave_out.value}"

    def split(self, manifest: Manifest) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
        """The cases to train on and to validate on. Raises ManifestError where there are none of either."""
        if self.leave_out is not None:
            return manifest.split_by(self.leave_out.column, self.leave_out.value)
        return manifest.split(self.fold)


class ExperimentConfig(Settings):
    """A whole experiment. Only what differs from the defaults needs to be written."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=100)
    description: str = ""
    seed: int = Field(default=0, ge=0)
    data: DataSettings
    preprocessing: Preprocessing = Field(default_factory=Preprocessing)
    patch: PatchSettings
    augmentation: tuple[Augmentation, ...] = ()
    network: Annotated[NetworkConfig, NETWORKS]
    loss: Annotated[LossConfig, LOSSES] = DiceCEConfig()
    training: TrainingSettings
    inference: InferenceSettings = InferenceSettings()
    postprocessing: tuple[Annotated[PostprocessingConfig, POSTPROCESSING], ...] = ()
    metrics: MetricsConfig = MetricsConfig()
    tracking: TrackingConfig = TrackingConfig()

    @model_validator(mode="after")
    def _parts_fit(self) -> ExperimentConfig:
        for problem in (_patch_problem, _augmentation_problem, _inference_problem, _validation_problem):
            found = problem(self)
            if found is not None:
                raise ValueError(found)
        return self

    def build_network(self, channels: int, labels: LabelSet) -> nn.Module:
        """The network for C input channels and these labels; torch's global generator decides its weights.

        Raises ConfigError with the pip command where it needs an extra that is not installed.
        """
        self.network.check_installed()
        return self.network.sized(self.patch.size).build(channels, labels.channels)


def _patch_problem(config: ExperimentConfig) -> str | None:
    """Why the network cannot take the patch, or the preprocessing cannot make it."""
    size, dims = list(config.patch.size), config.network.spatial_dims
    if len(size) != dims:
        exists = " or ".join(f"{known}D" for known in config.network.dims())
        return (
            f"patch.size {size} has {len(size)} dimensions, network.spatial_dims is {dims}; make them agree "
            f"({config.network.name!r} exists in {exists}, and a changed name resets its other keys)"
        )
    try:
        config.network.check_size(config.patch.size, "patch.size")
        for index, smaller in enumerate(config.patch.smaller):
            config.network.check_size(smaller, f"patch.smaller.{index}")
            if config.network.sized(smaller) != config.network.sized(config.patch.size):
                return f"patch.smaller: network {config.network.name!r} is made for patches of one size; leave it out"
    except ConfigError as error:
        return str(error)
    spacing, of_case = config.preprocessing.spacing_mm, len(config.patch.box)
    if spacing is not None and len(spacing) != of_case:
        return f"preprocessing.spacing_mm {list(spacing)} must be {of_case} numbers, one an axis of a case"
    return None


def _augmentation_problem(config: ExperimentConfig) -> str | None:
    """Why an augmentation cannot be done to the patch."""
    dims = config.network.spatial_dims
    for step in config.augmentation:
        plane: tuple[int, ...] = getattr(step, "plane", ())
        axes = [*getattr(step, "axes", ()), *plane]
        if any(axis >= dims for axis in axes):
            return f"augmentation {step.name!r} names axes {axes}, patches have {dims}; name axes from 0"
        for one in config.patch.sizes if plane else ():
            if plane[0] == plane[1] or one[plane[0]] != one[plane[1]]:
                return (
                    f"augmentation {step.name!r} turns plane {list(plane)}, which is not square in patch.size "
                    f"{list(one)}; name two axes of one size, or drop it"
                )
    return None


def _inference_problem(config: ExperimentConfig) -> str | None:
    flips = config.inference.flips
    if any(axis >= len(config.patch.box) for axis in flips):
        return f"inference.flips {list(flips)} names an axis that the cases do not have; name axes from 0"
    return None


def _validation_problem(config: ExperimentConfig) -> str | None:
    plan = config.training
    if not config.data.validates and (plan.keep == "best" or plan.patience is not None):
        return "data.fold null validates on no case; choose a fold, or set training.keep: last and patience: null"
    return None


def read_experiment(path: Path, assignments: list[str] | None = None) -> ExperimentConfig:
    """The experiment of a YAML file, after `--set` assignments. Raises ConfigError, naming key and value."""
    content = _migrate(apply_assignments(read_yaml(path), assignments or []), str(path))
    return validate(ExperimentConfig, content, str(path))


def changed(config: ExperimentConfig, assignments: list[str]) -> ExperimentConfig:
    """A copy with some keys set, checked anew."""
    content = apply_assignments(config.model_dump(mode="json"), assignments)
    return validate(ExperimentConfig, merge({}, content), "--set") if assignments else config


def _migrate(content: dict[str, Any], where: str) -> dict[str, Any]:
    """Lifts an older schema to the present one; a newer one is refused."""
    version = content.get("schema_version", SCHEMA_VERSION)
    if not isinstance(version, int) or not 1 <= version <= SCHEMA_VERSION:
        raise ConfigError(
            f"{where}: schema_version {version!r} is not known; this medseg reads 1 to {SCHEMA_VERSION}, update medseg"
        )
    return content


def check_against(config: ExperimentConfig, manifest: Manifest) -> None:
    """Refuses a config that its manifest contradicts, before any image is read. Raises ConfigError with the fix."""
    dims, wanted = manifest.dataset.spatial_dims, len(config.patch.box)
    if dims != wanted:
        raise ConfigError(
            f"{config.name}: patch.size {list(config.patch.size)} is for cases of {wanted} dimensions, "
            f"{manifest.dataset.name} has {dims}; set network.spatial_dims, or patch.slice_axis for 2D on volumes"
        )
    config.network.check_installed()
    config.loss.check_labels(manifest.dataset.labels)
    if config.data.validates:
        config.data.split(manifest)
    if any(step.name == "colour" for step in config.augmentation) and len(manifest.dataset.channels) != 3:
        found = ", ".join(manifest.dataset.channels)
        raise ConfigError(
            f"{config.name}: augmentation 'colour' needs 3 channels (RGB), {manifest.dataset.name} has {found}; drop it"
        )
    check_laterality(config, manifest.dataset.labels)


def check_laterality(config: ExperimentConfig, labels: LabelSet) -> None:
    """A mirrored left kidney is a right one: where labels have pairs, flips must know which axis runs left to right.

    That axis follows from `preprocessing.orientation`; where the file's own axes are kept, it may be any. Raises
    ConfigError for a flip along an axis that may be it.
    """
    if not labels.has_pairs or config.preprocessing.left_right_axis(len(config.patch.box)) is not None:
        return
    paired = next(label.name for label in labels.labels if label.pair is not None)
    sides = {0} if len(config.patch.box) == 2 else {0, 1, 2}
    of_patch = [axis for axis in range(len(config.patch.box)) if axis != config.patch.slice_axis]
    flips = [step for step in config.augmentation if step.name == "flip"]
    mirrored = [of_patch[axis] for step in flips for axis in getattr(step, "axes", ())]
    for where, axes in (("augmentation 'flip'", mirrored), ("inference.flips", config.inference.flips)):
        if sides & set(axes):
            fix = "" if len(config.patch.box) == 2 else ", or set preprocessing.orientation"
            raise ConfigError(
                f"{where} may mirror left and right, which turns {paired!r} into its pair; leave that axis out{fix}"
            )
