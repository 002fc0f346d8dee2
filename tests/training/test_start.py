"""Fine-tuning begins from what was asked for, and says tensor by tensor what that was."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from medseg.errors import ConfigError
from medseg.networks import UNetConfig
from medseg.training.start import StartSettings, begin_from


def network(outputs: int = 3, seed: int = 0, channels: tuple[int, ...] = (4, 8)) -> nn.Module:
    torch.manual_seed(seed)
    return UNetConfig(channels=channels).build(1, outputs)


def same(one: nn.Module, other: nn.Module) -> list[str]:
    theirs = other.state_dict()
    return [name for name, value in one.state_dict().items() if torch.equal(value, theirs[name])]


@pytest.mark.parametrize("place", ["model/weights.pt", "weights.pt", "models/model.pt", "models/model.safetensors"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.network."])
def test_runs_models_bundles_and_files_are_read(tmp_path: Path, place: str, prefix: str) -> None:
    given, ours = network(seed=1), network(seed=2)
    tensors = {f"{prefix}{name}": value for name, value in given.state_dict().items()}
    path = tmp_path / place
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    for weights in (tmp_path, path):
        report = begin_from(ours, StartSettings(weights=str(weights)))
        assert same(ours, given) == list(ours.state_dict()) == list(report.loaded)
    assert str(report) == f"begins from {len(report.loaded)} of {len(report.loaded)} tensors of {path}"


def test_the_last_layer_may_begin_anew_for_other_labels(tmp_path: Path) -> None:
    given, ours, before = network(3, seed=1), network(5, seed=2), network(5, seed=2)
    torch.save(given.state_dict(), tmp_path / "w.pt")
    heads = [name for name, value in ours.state_dict().items() if value.shape != given.state_dict()[name].shape]
    assert heads
    with pytest.raises(ConfigError, match=r"fits \d+ of the \d+ tensors of the network, not \S+ \(\[3, .*for \[5, "):
        begin_from(ours, StartSettings(weights=str(tmp_path / "w.pt")))
    assert same(ours, before) == list(ours.state_dict())  # refused before anything was changed
    report = begin_from(ours, StartSettings(weights=str(tmp_path / "w.pt"), anew=tuple(heads)))
    assert report.random == dict.fromkeys(heads, "as asked")
    assert set(same(ours, before)) >= set(heads)
    kept = [name for name in ours.state_dict() if name not in heads]
    assert all(torch.equal(ours.state_dict()[name], given.state_dict()[name]) for name in kept)


def test_a_part_of_a_state_dict_is_taken_where_that_is_asked(tmp_path: Path) -> None:
    given, ours = network(seed=1), network(seed=2)
    part = dict(list(given.state_dict().items())[:3])
    torch.save({"state_dict": {**part, "other.weight": torch.ones(1)}}, tmp_path / "w.pt")
    report = begin_from(ours, StartSettings(weights=str(tmp_path / "w.pt"), partial=True))
    assert report.loaded == tuple(part)
    assert report.unused == ("other.weight",)
    assert set(report.random.values()) == {"missing"}
    assert "begins from 3 of" in str(report)
    assert "not used: other.weight" in str(report)


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    ours = network()
    path = tmp_path / "w.pt"
    torch.save(ours.state_dict(), path)
    with pytest.raises(ConfigError, match=r"'absent': does not exist; give the folder of a run"):
        begin_from(ours, StartSettings(weights="absent"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"holds none of model/weights\.pt, "):
        begin_from(ours, StartSettings(weights=str(tmp_path / "empty")))
    with pytest.raises(ConfigError, match=r"no tensor's name begins with 'haed'"):
        begin_from(ours, StartSettings(weights=str(path), anew=("haed",)))
    with pytest.raises(ConfigError, match=r"is not the file of training\.start\.sha256"):
        begin_from(ours, StartSettings(weights=str(path), sha256="0" * 64))
    torch.save({"strange": torch.ones(1)}, path)
    with pytest.raises(ConfigError, match="fits 0 of"):
        begin_from(ours, StartSettings(weights=str(path), partial=True))
    torch.save({name: torch.full_like(value, float("nan")) for name, value in ours.state_dict().items()}, path)
    with pytest.raises(ConfigError, match="values that are not finite"):
        begin_from(ours, StartSettings(weights=str(path)))


def test_the_digest_is_written_down_once(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(b"tensors")
    pinned = StartSettings(weights=str(path)).pinned()
    assert pinned.sha256 == hashlib.sha256(b"tensors").hexdigest()
    path.write_bytes(b"others")
    assert pinned.pinned() == pinned
