"""A whole experiment as one file: what is accepted, and how a mistake is answered."""

import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import pytest
import yaml

from medseg.config import merge
from medseg.errors import ConfigError, ManifestError
from medseg.experiment import ExperimentConfig, changed, check_against, check_laterality, read_experiment
from medseg.labels import Label, LabelSet
from pipelines.locations import find_manifest, shipped_configs

SMALLEST = {
    "name": "test",
    "data": {"manifest": "hippocampus"},
    "patch": {"size": [16, 16, 16]},
    "network": {"name": "unet", "channels": [8, 16]},
    "training": {"total_steps": 10},
}


def read(tmp_path: Path, changes: dict, assignments: list[str] | None = None) -> ExperimentConfig:
    path = tmp_path / "experiment.yaml"
    path.write_text(yaml.safe_dump(merge(SMALLEST, changes)))
    return read_experiment(path, assignments)


@pytest.mark.parametrize("name", sorted(shipped_configs()))
def test_every_shipped_config_is_valid_and_survives_writing(name: str, tmp_path: Path) -> None:
    config = read_experiment(shipped_configs()[name])
    assert config.name == name
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    assert read_experiment(tmp_path / "again.yaml") == config


def test_reading_a_config_imports_neither_torch_nor_monai() -> None:
    path = shipped_configs()["hippocampus_unet3d"]
    code = (
        "import sys; from pathlib import Path; from medseg.experiment import read_experiment; "
        f"read_experiment(Path({str(path)!r})); sys.exit('torch' in sys.modules or 'monai' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"netwrok": {}}, ["unknown key 'netwrok'", "did you mean 'network'"]),
        ({"network": {"name": "unett"}}, ["network.name: 'unett'", "did you mean 'unet'"]),
        ({"network": {"chanels": [8, 16]}}, ["unknown key", "chanels", "did you mean 'channels'"]),
        ({"training": {"batch_size": 0}}, ["training.batch_size", "0"]),
        ({"training": {"optimizer": {"name": "adamm"}}}, ["training.optimizer.name", "did you mean 'adam"]),
        ({"patch": {"size": [16, 17, 16]}}, ["patch.size [16, 17, 16]", "multiples of 2", "[16, 16, 16]"]),
        ({"patch": {"size": [16, 16]}}, ["2 dimensions", "spatial_dims is 3"]),
        ({"augmentation": [{"name": "flipp"}]}, ["augmentation.0.name", "did you mean 'flip'"]),
        ({"augmentation": [{"name": "flip", "axes": [3]}]}, ["flip", "axes [3]"]),
        ({"inference": {"flips": [3]}}, ["inference.flips [3]"]),
        ({"inference": {"flips": [-1]}}, ["inference.flips.0", "-1"]),  # would turn the classes around
        ({"augmentation": [{"name": "flip", "axes": [-1]}]}, ["augmentation.0.axes.0", "-1"]),
        ({"augmentation": [{"name": "rotate90"}], "patch": {"size": [16, 24, 16]}}, ["rotate90", "[0, 1]", "square"]),
        ({"augmentation": [{"name": "resized_crop", "share": [0.5, 1.5]}]}, ["augmentation.0.share.1", "1.5"]),
        (
            {"augmentation": [{"name": "gamma", "power": [1.5, 0.7]}]},
            ["augmentation.0.power", "[1.5, 0.7]", "lower end first"],
        ),
        ({"preprocessing": {"spacing_mm": [1, 1]}}, ["preprocessing.spacing_mm [1.0, 1.0]", "3 numbers"]),
        (
            {"data": {"fold": None}, "training": {"keep": "best", "validate_every_epochs": 1}},
            ["data.fold null", "training.keep: last"],
        ),
        ({"patch": {"size": [16, 24, 16], "smaller": [[16, 32, 16]]}}, ["smaller [16, 32, 16]", "memory"]),
        ({"patch": {"size": [16, 24, 16], "smaller": [[16, 16, 9]]}}, ["patch.smaller.0 [16, 16, 9]", "multiples of"]),
        (
            {"augmentation": [{"name": "rotate90"}], "patch": {"size": [16, 16, 16], "smaller": [[8, 16, 16]]}},
            ["rotate90", "[0, 1]", "[8, 16, 16]"],
        ),
        ({"loss": {"name": "dise"}}, ["loss.name: 'dise'", "did you mean 'dice'"]),
        ({"schema_version": 99}, ["schema_version 99", "update medseg"]),
        ({"name": "../escape"}, ["name", "../escape"]),
        ({"seed": -1}, ["seed", "-1"]),
        ({"preprocessing": {"orientation": "XYZ"}}, ["preprocessing.orientation", "XYZ"]),
        ({"tracking": {"store": "./mlruns"}}, ["tracking.store", "mlruns"]),
    ],
)
def test_a_mistake_names_key_value_and_fix(tmp_path: Path, changes: dict, words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, changes)
    message = str(caught.value)
    assert "experiment.yaml" in message
    assert len(message.splitlines()) <= 2
    for word in words:
        assert word in message


def test_assignments_change_single_keys(tmp_path: Path) -> None:
    config = read(tmp_path, {}, ["data.fold=3", "training.total_steps=null", "training.max_minutes=2", "seed=7"])
    assert (config.data.fold, config.training.max_minutes, config.seed) == (3, 2.0, 7)


def test_assigning_a_name_drops_the_settings_of_the_old_one(tmp_path: Path) -> None:
    config = read(tmp_path, {}, ["network.name=attention_unet"])
    assert config.network.name == "attention_unet"


def test_assigning_the_experiments_name_keeps_the_rest(tmp_path: Path) -> None:
    assert read(tmp_path, {}, ["name=other"]).network.name == "unet"


@pytest.mark.parametrize("assignment", ["seed", "=3", "a..b=3", "seed=2020-13-45", "seed=[", "augmentation.0.name=x"])
def test_an_assignment_that_cannot_be_is_refused(tmp_path: Path, assignment: str) -> None:
    with pytest.raises(ConfigError):
        read(tmp_path, {}, [assignment])


def test_changed_checks_anew(tmp_path: Path) -> None:
    config = read(tmp_path, {})
    assert changed(config, ["inference.flips=[0]"]).inference.flips == (0,)
    with pytest.raises(ConfigError, match="overlp"):
        changed(config, ["inference.overlp=0.1"])


def test_a_fold_that_is_not_in_the_manifest_is_refused(tmp_path: Path) -> None:
    from medseg.data.manifest import read_manifest

    manifest = read_manifest(find_manifest("hippocampus"))
    check_against(read(tmp_path, {"data": {"fold": 1}}), manifest)
    with pytest.raises(ManifestError, match=r"fold 9 .* folds are: 1, 2, 3, 4"):
        check_against(read(tmp_path, {"data": {"fold": 9}}), manifest)


@pytest.mark.parametrize(
    ("orientation", "axis", "is_refused"),
    [("RAS", 0, False), ("RAS", 1, False), ("AIL", 2, False), (None, 1, True), (None, 0, True)],
)
def test_paired_labels_refuse_flips_where_left_and_right_are_not_known(
    tmp_path: Path, orientation: str | None, axis: int, is_refused: bool
) -> None:
    pair = LabelSet(labels=(Label(name="left", value=1, pair="right"), Label(name="right", value=2, pair="left")))
    prepared = {"preprocessing": {"orientation": orientation}}
    flips: list[dict] = [{"augmentation": [{"name": "flip", "axes": [axis]}]}, {"inference": {"flips": [axis]}}]
    for flip in flips:
        config = read(tmp_path, {**prepared, **flip})
        refusal: AbstractContextManager[object] = pytest.raises(ConfigError, match="into its pair")
        with refusal if is_refused else nullcontext():
            check_laterality(config, pair)


def test_the_axes_of_slices_are_counted_in_the_volume(tmp_path: Path) -> None:
    pair = LabelSet(labels=(Label(name="left", value=1, pair="right"), Label(name="right", value=2, pair="left")))
    flat = {"network": {"spatial_dims": 2}, "patch": {"size": [16, 16], "slice_axis": 0}}
    check_laterality(read(tmp_path, {**flat, "augmentation": [{"name": "flip", "axes": [0]}]}), pair)


def test_a_2d_network_on_volumes_needs_a_slice_axis(tmp_path: Path) -> None:
    from medseg.data.manifest import read_manifest

    manifest = read_manifest(find_manifest("hippocampus"))
    flat = {"network": {"spatial_dims": 2}, "patch": {"size": [16, 16]}, "data": {"fold": 1}}
    with pytest.raises(ConfigError, match="slice_axis"):
        check_against(read(tmp_path, flat), manifest)
    check_against(read(tmp_path, merge(flat, {"patch": {"slice_axis": 2}})), manifest)


def test_a_network_made_for_one_size_takes_no_smaller_patches(tmp_path: Path) -> None:
    patch = {"size": [64, 64, 64], "smaller": [[32, 32, 32]]}
    with pytest.raises(ConfigError, match="network 'unetr' is made for patches of one size; leave it out"):
        read(tmp_path, {"patch": patch, "network": {"name": "unetr"}})
