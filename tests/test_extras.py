"""Without its optional extras the package works, says what needs them, and how to get them."""

from __future__ import annotations

import json
import sys

import pytest
from typer.testing import CliRunner

from medseg.errors import ConfigError
from medseg.extras import EXTRAS, install_command, is_installed, require
from medseg.networks import NETWORKS
from pipelines.command import app

NEEDY = [(name, dims) for name, entry in NETWORKS for dims in entry.extras]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation without any extra: Python's own way to forbid an import."""
    for module in [module for modules in EXTRAS.values() for module in modules]:
        monkeypatch.setitem(sys.modules, module, None)


@pytest.mark.usefixtures("bare")
def test_absent_extra_is_told_with_the_command_that_installs_it() -> None:
    assert not is_installed("zoo")
    with pytest.raises(ConfigError, match=r"hrnet needs .*timm.*pip install 'medseg\[zoo\]'"):
        require("zoo", "hrnet")


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
        assert entries[name]["spatial_dims"] == list(entry.dims())
        assert entries[name]["missing"] == sorted(set(entry.extras.values()))
        assert all(install_command(extra) in entries[name]["description"] for extra in entry.extras.values())


def test_every_extra_that_a_network_names_exists() -> None:
    assert {extra for _, entry in NETWORKS for extra in entry.extras.values()} <= set(EXTRAS)
