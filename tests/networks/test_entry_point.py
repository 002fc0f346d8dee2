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
from medseg.networks import NetworkConfig

class Tiny(NetworkConfig):
    """A single convolution from another package."""

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


@pytest.fixture
def installed(tmp_path: Path) -> dict[str, str]:
    """The environment of a Python that finds a package with an entry point: its module and its metadata, as pip leaves
    them."""
    (tmp_path / "tiny_networks.py").write_text(SOURCE)
    metadata = tmp_path / "tiny_networks-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-networks\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[medseg.networks]\ntiny = tiny_networks:Tiny\n")
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def _run(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=120).stdout


def test_network_of_another_package_is_listed_after_ours(installed: dict[str, str]) -> None:
    script = "from pipelines.command import app; app(['list', 'networks', '--json'])"
    entries = json.loads(_run(installed, "-c", script))["entries"]
    assert [entries[0]["name"], entries[-1]["name"]] == ["unet", "tiny"]
    assert entries[-1]["description"].endswith("A single convolution from another package.")


def test_network_of_another_package_is_named_in_an_experiment_and_built(installed: dict[str, str]) -> None:
    assert _run(installed, "-c", USE).split() == ["1", "2", "5", "6", "7"]
