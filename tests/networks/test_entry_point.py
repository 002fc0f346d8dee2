"""A network of another package joins the catalogue by being installed, and is used like our own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = '''
from typing import Literal
from medseg.extras import Extra
from medseg.networks import NetworkConfig

class Tiny(NetworkConfig):
    """A single convolution from another package."""

    extras = {2: Extra("flat", ("flat_convolutions",), "pip install 'tiny-networks[flat]'")}

    name: Literal["tiny"] = "tiny"

    def divisor(self):
        return (1,) * self.spatial_dims

    def build(self, in_channels, out_channels):
        from torch import nn
        return (nn.Conv2d, nn.Conv3d)[self.spatial_dims - 2](in_channels, out_channels, 3, padding=1)
'''
USE = """
import torch
from medseg.config import validate
from medseg.experiment import ExperimentConfig
from medseg.labels import Label, LabelSet

content = {"name": "other", "data": {"manifest": "phantoms"}, "patch": {"size": [5, 6, 7]},
           "network": {"name": "tiny"}, "training": {"total_steps": 1}}
network = validate(ExperimentConfig, content, "other").build_network(1, LabelSet(labels=[Label(name="ball", value=1)]))
print(*network(torch.zeros(1, 1, 5, 6, 7)).shape)
"""
PROGRAM = "from pipelines.command import main; main()"
# kind -> where its catalogue is, what that is called, the base of its entries
JOINED = {
    "networks": ("medseg.networks", "NETWORKS", "NetworkConfig"),
    "attentions": ("medseg.networks.attention", "ATTENTIONS", "AttentionConfig"),
    "losses": ("medseg.losses", "LOSSES", "LossConfig"),
    "augmentations": ("medseg.data.augmentation", "AUGMENTATIONS", "AugmentationConfig"),
    "intensities": ("medseg.data.intensity", "INTENSITIES", "IntensityConfig"),
    "layouts": ("medseg.data.manifest_build", "LAYOUTS", "LayoutConfig"),
    "postprocessing": ("medseg.postprocessing", "POSTPROCESSING", "PostprocessingConfig"),
}


def install(folder: Path, source: str, kind: str = "networks") -> dict[str, str]:
    """The environment of a Python that finds a package with an entry point: its module and its metadata, as pip leaves
    them."""
    (folder / "tiny_networks.py").write_text(source)
    metadata = folder / "tiny_networks-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-networks\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[medseg.{kind}]\ntiny = tiny_networks:Tiny\n")
    return {**os.environ, "PYTHONPATH": str(folder)}


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    return install(tmp_path, SOURCE)


def _done(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)


def _run(environment: dict[str, str], *arguments: str) -> str:
    done = _done(environment, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_network_of_another_package_is_listed_after_ours_with_its_extra(installed: dict[str, str]) -> None:
    entries = json.loads(_run(installed, "-c", PROGRAM, "list", "networks", "--json"))["entries"]
    assert [entries[0]["name"], entries[-1]["name"]] == ["unet", "tiny"]
    assert entries[-1]["description"] == (
        "2D (extra flat), 3D: A single convolution from another package. [pip install 'tiny-networks[flat]']"
    )
    assert (entries[-1]["extras"], entries[-1]["missing"]) == ({"2D": "flat"}, ["flat"])


@pytest.mark.parametrize("first", ["", "import tiny_networks"])
def test_network_of_another_package_is_named_in_an_experiment_and_built(installed: dict[str, str], first: str) -> None:
    assert _run(installed, "-c", f"{first}\n{USE}").split() == ["1", "2", "5", "6", "7"]


def test_the_extra_of_another_package_is_told_with_its_own_command(installed: dict[str, str]) -> None:
    done = _done(installed, "-c", "from tiny_networks import Tiny; Tiny(spatial_dims=2).check_installed()")
    assert done.stderr.splitlines()[-1].endswith(
        "network 'tiny' in 2D needs flat_convolutions, not installed here; pip install 'tiny-networks[flat]'"
    )


@pytest.mark.parametrize("kind", JOINED)
def test_the_module_of_an_entry_may_be_imported_before_ours(tmp_path: Path, kind: str) -> None:
    module, catalogue, base = JOINED[kind]
    source = (
        f"from typing import Literal\nfrom {module} import {base}\n"
        f"class Tiny({base}):\n    name: Literal['tiny'] = 'tiny'\n"
        f"    vars().update({{method: lambda self, *given: None for method in {base}.__abstractmethods__}})\n"
    )
    use = f"import tiny_networks; from {module} import {catalogue}; print({catalogue}.names()[-1])"
    assert _run(install(tmp_path, source, kind), "-c", use).strip() == "tiny"


@pytest.mark.parametrize("kind", [*JOINED, "optimizers", "schedules"])
def test_no_package_is_loaded_while_ours_is_imported(tmp_path: Path, kind: str) -> None:
    environment = install(tmp_path, "print('loaded')", kind)
    assert _run(environment, "-c", "import medseg.experiment, medseg.trained_model") == ""


@pytest.mark.parametrize("command", [["list", "networks"], ["schema"]], ids=" ".join)
def test_a_broken_package_is_named_in_one_line(tmp_path: Path, command: list[str]) -> None:
    done = _done(install(tmp_path, "import a_module_that_is_not_there"), "-c", PROGRAM, *command)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "entry point 'tiny' of tiny-networks 1.0" in done.stderr


def test_an_entry_that_lacks_a_method_is_told_which(tmp_path: Path) -> None:
    source = SOURCE.replace("def divisor", "def divider")
    done = _done(install(tmp_path, source), "-c", PROGRAM, "list", "networks")
    assert done.returncode == 2
    assert "lacks what NetworkConfig asks for: divisor; update or uninstall that package" in done.stderr
