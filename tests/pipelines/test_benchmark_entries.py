"""What benchmarks go through: networks on an equal footing, valid lists of losses, ladders that can be climbed."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from scipy.ndimage import gaussian_filter

from medseg.config import read_yaml
from medseg.data.cases import read_case
from medseg.data.manifest import read_manifest
from medseg.errors import ConfigError
from medseg.experiment import read_experiment
from medseg.losses import DiceConfig, build_loss
from medseg.networks import NETWORKS
from pipelines.benchmark.entries import BASES, PREFIXES, Entry, fitted, loss_entries, network_entries, read_losses
from pipelines.benchmark.ladder import read_ladder, variants
from pipelines.locations import find_benchmark, find_config, find_manifest, shipped_configs

FORMS = [(name, dims) for name, entry in NETWORKS if entry.__module__.startswith("medseg.") for dims in entry.dims()]
LADDER: dict[str, Any] = {
    "bases": {3: "hippocampus_unet3d"},
    "rungs": [
        {"label": "plain", "set": ["loss={name: cross_entropy}"]},
        {"label": "+ Dice", "set": ["loss={name: dice_ce}"]},
    ],
}


@cache
def shipped(dims: int) -> list[Entry]:
    return network_entries([], (dims,), [])


@pytest.mark.parametrize(("network", "dims"), FORMS)
def test_every_network_takes_part(network: str, dims: int) -> None:
    found = [entry for entry in shipped(dims) if entry.experiment and entry.experiment.network.name == network]
    if not found:
        try:
            NETWORKS[network].model_validate({"spatial_dims": dims}).check_installed()
        except ConfigError as error:
            pytest.skip(str(error))
    assert found, [entry.skipped for entry in shipped(dims) if entry.skipped]


@pytest.mark.parametrize("dims", [2, 3])
def test_networks_differ_in_network_optimizer_and_patch_alone(dims: int) -> None:
    base = read_experiment(find_config(BASES[dims])).model_dump()
    for entry in shipped(dims):
        if entry.experiment is None:
            continue
        source = PREFIXES[dims] + entry.label
        path = shipped_configs().get(source) or shipped_configs()[f"{source}3d"]
        own, found = read_experiment(path).model_dump(), entry.experiment.model_dump()
        for key in ("optimizer", "precision"):
            assert found["training"].pop(key) == own["training"][key]
        block = read_yaml(path)["network"]
        assert entry.experiment.network == NETWORKS[block["name"]].model_validate(block)
        size = found["patch"].pop("size")
        if dims == 3:
            assert size in (base["patch"]["size"], own["patch"]["size"])
        left = {key: value for key, value in found.items() if key not in ("name", "description", "network")}
        expected = {key: value for key, value in base.items() if key in left}
        expected["training"] = {key: expected["training"][key] for key in left["training"]}
        expected["patch"] = {key: value for key, value in expected["patch"].items() if key != "size"}
        assert left == expected, entry.label


def test_a_patch_is_the_bases_where_the_network_takes_it() -> None:
    found = {entry.label: entry.experiment for entry in shipped(3)}
    assert found["unet"] is not None
    assert found["setr"] is not None
    assert found["swin_unetr"] is not None
    assert found["unet"].patch.size == found["setr"].patch.size == (40, 56, 40)
    assert found["setr"].training.batch_size == found["unet"].training.batch_size  # its own config has another
    assert found["swin_unetr"].patch.size == (32, 64, 32)  # divides by 32, as its own does


def test_the_plain_network_of_a_comparison_is_as_wide_as_its_variants() -> None:
    found = {entry.label: entry.experiment for entry in shipped(2)}
    assert found["unet"] is not None
    assert found["unet"].network.model_dump()["channels"] == (16, 32, 64, 128)
    assert found["unet"].patch.slice_axis == 2
    assert sum(entry.label.startswith("unet2d") for entry in shipped(2)) == 0


def test_a_precision_that_a_config_sets_is_the_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = read_yaml(find_config("hippocampus_vnet"))
    content["training"] = {**content["training"], "precision": "fp32", "batch_size": 1}
    (tmp_path / "hippocampus_vnet.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr(
        "pipelines.benchmark.entries.shipped_configs", lambda: {"hippocampus_vnet": tmp_path / "hippocampus_vnet.yaml"}
    )
    (entry,) = network_entries([], (3,), [])
    assert entry.experiment is not None
    assert entry.experiment.training.precision == "fp32"
    assert entry.experiment.training.batch_size != 1


def test_names_choose() -> None:
    assert [(entry.label, entry.dims) for entry in network_entries(["unet"], (2, 3), [])] == [("unet", 2), ("unet", 3)]


def test_a_name_that_no_config_has_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'unet'"):
        network_entries(["unett"], (2, 3), [])


def test_settings_that_fit_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"nothing to compare.*batch_size"):
        network_entries(["unet"], (2, 3), ["training.batch_size=0"])


@pytest.mark.parametrize(("size", "expected"), [((40, 56), [40, 56]), ((9, 8), [16, 8]), ((5, 3), [16, 8])])
def test_a_patch_is_rounded_up_to_what_the_network_takes(size: tuple[int, int], expected: list[int]) -> None:
    network = NETWORKS["unet"].model_validate({"spatial_dims": 2, "channels": (8, 8, 8, 8)})  # divides by 8
    assert fitted(network, size) == expected
    network.check_size(expected, "patch")


def test_the_shipped_losses_are_valid_and_leave_none_out() -> None:
    from medseg.losses import LOSSES

    choices = read_losses(find_benchmark("losses"))
    used = {loss.name for loss in choices.losses.values()}
    used |= {term["loss"]["name"] for loss in choices.losses.values() for term in loss.model_dump().get("terms", ())}
    assert set(LOSSES.names()) - used == set()
    found = loss_entries(choices, [], [])
    assert [entry.skipped for entry in found if entry.skipped] == []
    assert [entry.experiment.loss for entry in found if entry.experiment] == list(choices.losses.values())


@pytest.mark.real
@pytest.mark.parametrize("label", ["dice_ce_and_boundary", "dice_and_hausdorff", "dice_ce_and_cldice"])
def test_what_is_added_to_a_loss_weighs_about_half_of_it_late_in_training(label: str, real_data: Path) -> None:
    """On a label that is blurred until its Dice loss is 0.2, for the mean of two cases."""
    manifest, chosen = read_manifest(find_manifest("hippocampus")), read_losses(find_benchmark("losses")).losses[label]
    parts = [(part.weight(1.0), build_loss(part.loss, manifest.dataset.labels)) for part in chosen.parts()]
    dice = build_loss(DiceConfig(), manifest.dataset.labels)
    found = np.zeros(len(parts))
    for case in manifest.cases[:80:40]:
        label_xyz = read_case(manifest, case, real_data / "hippocampus").label
        assert label_xyz is not None
        truth = torch.tensor(label_xyz.array[None, None]).float()
        blurred = (_blurred(label_xyz.array, sigma) for sigma in np.arange(0.5, 2.0, 0.05))
        logits = next(one for one in blurred if dice(one, truth) > 0.2)
        found += [weight * float(loss(logits, truth)) for weight, loss in parts]
    assert 0.4 < found[1] / found[0] < 1


def _blurred(label: np.ndarray, sigma: float) -> torch.Tensor:
    """Logits `(1, 3, X, Y, Z)` of the background and two labels, each smoothed by a Gaussian of so many voxels."""
    smooth = np.stack([gaussian_filter((label == value).astype(float), sigma) for value in range(3)])
    return torch.tensor(np.log(np.clip(smooth, 1e-4, None))[None]).float()


def test_the_shipped_ladder_is_valid_in_2d_and_3d() -> None:
    ladder = read_ladder(find_benchmark("ablation"))
    for dims in (2, 3):
        found = list(variants(ladder, dims, None, []))
        assert len(found) == 6
        assert found[0].experiment.loss.name == "cross_entropy"
        assert [
            one.label for one, other in zip(found[1:], found, strict=False) if one.experiment == other.experiment
        ] == []


def test_the_pretrained_rungs_need_a_file_and_2d(tmp_path: Path) -> None:
    ladder, file = read_ladder(find_benchmark("ablation")), tmp_path / "encoder.safetensors"
    *_, last_but_one, last = variants(ladder, 2, file, [])
    assert last_but_one.experiment.network.model_dump()["weights"] is None
    assert last.experiment.network.model_dump()["weights"] == str(file)
    assert not last.only_uses(last_but_one)
    assert len(list(variants(ladder, 3, file, []))) == 6


def test_a_ladder_that_cannot_be_climbed_names_the_rung(tmp_path: Path) -> None:
    rungs = [*LADDER["rungs"][:2], {"label": "+ typo", "set": ["network.chanels=[4,8]"]}]
    (tmp_path / "ladder.yaml").write_text(yaml.safe_dump({**LADDER, "rungs": rungs}))
    with pytest.raises(ConfigError, match=r"rung '\+ typo'.*did you mean 'channels'"):
        list(variants(read_ladder(tmp_path / "ladder.yaml"), 3, None, []))
    with pytest.raises(ConfigError, match="--dims 2: the ladder has no base"):
        list(variants(read_ladder(tmp_path / "ladder.yaml"), 2, None, []))


def test_the_lists_of_benchmarks_are_no_experiments() -> None:
    assert [name for name in shipped_configs() if "benchmark" in name] == []
    with pytest.raises(ConfigError, match=r"neither a path nor a shipped config|does not exist"):
        find_config("benchmarks/losses")


def test_a_rung_with_weights_must_say_that_it_needs_them(tmp_path: Path) -> None:
    rungs = [*LADDER["rungs"], {"label": "+ encoder", "set": ["network.weights=WEIGHTS"]}]
    (tmp_path / "ladder.yaml").write_text(yaml.safe_dump({**LADDER, "rungs": rungs}))
    with pytest.raises(ConfigError, match=r"'\+ encoder' sets WEIGHTS.*needs_weights: true"):
        read_ladder(tmp_path / "ladder.yaml")


def test_pretrained_or_not_an_encoder_learns_at_one_rate(tmp_path: Path) -> None:
    *_, before, random, pretrained = variants(read_ladder(find_benchmark("ablation")), 2, tmp_path / "e", [])
    rates = [one.experiment.training.optimizer.learning_rate for one in (random, pretrained)]
    assert rates == [read_experiment(find_config("lungs_smp")).training.optimizer.learning_rate] * 2
    assert before.experiment.training.optimizer.learning_rate != rates[0]
