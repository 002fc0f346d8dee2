"""What is written down of a run's surroundings, and draws that depend on their names alone."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from medseg.errors import ModelError
from medseg.reproducibility import environment, git_state, seeded, weights_digest


def test_seeds_are_the_same_for_ever() -> None:
    # Frozen: a change here changes every run that was ever trained.
    assert seeded(0, "data", 1, 2) == 8720646100865123338  # blake2b of "i1:0s4:datai1:1i1:2", first 63 bits
    assert seeded(12345) == 6184174788230375670


def test_seeds_depend_on_each_part_and_its_kind() -> None:
    draws = [
        seeded(0),
        seeded(1),
        seeded(0, "a"),
        seeded(0, "a", 1),
        seeded(0, "a1"),
        seeded(0, 1, "a"),
        seeded(0, "1"),
    ]
    draws += [seeded(0, 1), seeded(0, 11), seeded(0, 1, 1), seeded(-1), seeded(2**80)]
    assert len(set(draws)) == len(draws)
    assert seeded(0, np.int64(7)) == seeded(0, 7)  # type: ignore[arg-type]


def test_seeds_fill_63_bits_evenly() -> None:
    draws = np.array([seeded(3, "data", epoch, position) for epoch in range(10) for position in range(400)])
    assert draws.min() >= 0
    assert draws.max() < 2**63
    ones = (draws[:, None] >> np.arange(63) & 1).mean(axis=0)
    assert abs(ones - 0.5).max() < 5 * 0.5 / np.sqrt(len(draws))  # five standard errors of a fair coin


def test_a_fraction_is_no_seed() -> None:
    with pytest.raises(TypeError):
        seeded(0, 0.5)  # type: ignore[arg-type]


def test_weights_digest_sees_names_types_shapes_and_values_only() -> None:
    import torch

    weight = torch.arange(6.0).reshape(2, 3)
    digest = weights_digest({"a": weight, "b": torch.tensor(True)})
    assert digest == weights_digest({"b": torch.tensor(True), "a": weight.T.contiguous().T})
    others = [
        {"a": weight, "b": torch.tensor(False)},
        {"a": weight.reshape(3, 2), "b": torch.tensor(True)},
        {"a": weight.double(), "b": torch.tensor(True)},
        {"a": weight.bfloat16(), "b": torch.tensor(True)},
        {"c": weight, "b": torch.tensor(True)},
        {"a": weight},
        {"a": torch.zeros(0), "b": torch.tensor(True)},
    ]
    digests = [weights_digest(other) for other in others]
    assert len({digest, *digests}) == len(others) + 1
    with pytest.raises(ModelError, match="'x' is int"):
        weights_digest({"x": 1})  # type: ignore[dict-item]


def test_environment_is_plain_and_holds_the_lock() -> None:
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert found["packages"]["torch"] == importlib.metadata.version("torch")
    assert found["packages"]["numpy"] == np.__version__
    assert found["threads"]["torch"] >= 1
    assert found["cpu"]["model"]


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    git("init", "--quiet")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "ünï.py").write_text("x = 1\n", encoding="utf-8")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    return tmp_path


def test_clean_code_has_a_commit_and_no_diff(repository: Path) -> None:
    state = git_state(repository / "code")
    assert state is not None
    assert len(state.commit) == 40
    assert (state.is_dirty, state.diff, state.untracked) == (False, "", ())


def test_changed_code_is_dirty_and_its_diff_is_kept(repository: Path) -> None:
    (repository / "code" / "ünï.py").write_text("x = 2\n", encoding="utf-8")
    (repository / "new.py").write_text("")
    state = git_state(repository / "code")
    assert state is not None
    assert state.is_dirty
    assert "-x = 1\n+x = 2\n" in state.diff
    assert state.untracked == ("new.py",)


def test_a_folder_of_packages_inside_a_repository_has_no_state_of_its_own(repository: Path) -> None:
    (repository / "environment").mkdir()
    (repository / "environment" / "package.py").write_text("")
    assert git_state(repository / "environment") is None


def test_no_git_is_no_error(tmp_path: Path) -> None:
    assert git_state(tmp_path) is None
    assert git_state(tmp_path / "absent") is None
