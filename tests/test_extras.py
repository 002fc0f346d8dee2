"""Without its optional extras the package works, says what needs them, and how to get them."""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from medseg.errors import ConfigError
from medseg.extras import ZOO, Extra
from medseg.networks import NETWORKS
from pipelines.command import app

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"
NEEDY = [(name, dims) for name, entry in NETWORKS for dims in entry.extras]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without any extra: Python's own way to forbid an import."""
    for module in {module for _, entry in NETWORKS for extra in entry.extras.values() for module in extra.modules}:
        monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.usefixtures("bare")
def test_absent_extra_is_told_with_the_command_that_installs_it() -> None:
    assert not ZOO.is_installed()
    with pytest.raises(ConfigError, match=r"hrnet needs .*timm.*pip install 'medseg\[zoo\]'"):
        ZOO.require("hrnet")


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(("name", "dims"), NEEDY)
def test_choosing_a_network_without_its_extra_is_refused_in_one_line(name: str, dims: int) -> None:
    config = NETWORKS[name].model_validate({"spatial_dims": dims})
    with pytest.raises(ConfigError, match="pip install") as caught:
        config.check_installed()
    assert "\n" not in str(caught.value)
    assert name in str(caught.value)


@pytest.mark.usefixtures("bare")
def test_list_of_networks_marks_what_needs_an_extra() -> None:
    """Every row of the list, and the pip command on those whose extra is absent."""
    result = CliRunner().invoke(app, ["list", "networks", "--json"])
    entries = {entry["name"]: entry for entry in json.loads(result.stdout)["entries"]}
    assert list(entries) == NETWORKS.names()
    for name, entry in NETWORKS:
        assert entries[name]["compiles"] is (name != "swin_unetr")
        assert entries[name]["spatial_dims"] == list(entry.dims())
        assert entries[name]["missing"] == sorted({extra.name for extra in entry.extras.values()})
        assert all(extra.command in entries[name]["description"] for extra in entry.extras.values())


def test_an_extra_that_is_there_is_not_asked_for() -> None:
    """Nor imported: an extra of modules of the core."""
    assert Extra("core", ("torch", "monai"), "pip install medseg").is_installed()
    Extra("core", ("torch", "monai"), "pip install medseg").require("unet")


def test_extras_are_those_that_the_package_offers() -> None:
    """Each brings, by the names of its modules, what pyproject.toml installs under that name."""
    offered = tomllib.loads(PYPROJECT.read_text())["project"]["optional-dependencies"]
    ours = {extra for _, entry in NETWORKS if entry.__module__.startswith("medseg.") for extra in entry.extras.values()}
    assert ours == {ZOO}
    for extra in ours:
        brought = [re.match(r"[\w.-]+", line) for line in offered[extra.name]]
        assert {found[0].replace("-", "_") for found in brought if found} == set(extra.modules)
        assert extra.command == f"pip install 'medseg[{extra.name}]'"
