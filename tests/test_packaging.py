"""What a user installs: the wheel works from any folder, and continuous integration runs what README says."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
SHIPPED = ("pyproject.toml", "README.md", "LICENSE", "medseg", "pipelines", "configs", "data_manifests")
COMMANDS = [
    "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/medseg demo",
    ".venv/bin/pip install -e '.[dev,zoo]' && .venv/bin/pytest",
]


def run(*command: object, folder: Path, path: str = "") -> str:
    """What a command prints; a failure shows its complaint. Python finds modules where it stands, or on `path` too."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy so that nothing is left in the checkout."""
    pytest.importorskip("hatchling", reason="hatchling builds the wheel; pip install -e '.[dev]'")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SHIPPED:
        path = REPOSITORY / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / name)
    run(
        sys.executable,
        "-m",
        "hatchling",
        "build",
        "--target",
        "wheel",
        "--directory",
        out,
        folder=source,
        path=_python_path(),
    )
    return next(out.glob("*.whl"))


def _python_path() -> str:
    return os.environ.get("PYTHONPATH", "")


@pytest.fixture(scope="module")
def program(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `medseg` command in an environment of its own, where our packages come from the wheel alone."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
    here = Path(sysconfig.get_path("purelib"))
    # This environment's packages, without its .pth files: those of an editable installation would show the checkout.
    (packages / "borrowed.pth").write_text(f"{here}\n")
    with ZipFile(wheel) as archive:
        archive.extractall(packages)
        points = next(name for name in archive.namelist() if name.endswith("entry_points.txt"))
        target = re.search(r"^medseg = (\w+(?:\.\w+)*):(\w+)$", archive.read(points).decode(), re.MULTILINE)
    assert target is not None
    script = folder / "bin" / "medseg"  # as pip writes it
    script.write_text(
        f"#!{folder}/bin/python\nimport sys\nfrom {target[1]} import {target[2]}\nsys.exit({target[2]}())\n"
    )
    script.chmod(0o755)
    return script


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A folder that holds nothing but a `pipelines` package and a `medseg` module of somebody else."""
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "__init__.py").write_text("raise SystemExit('the decoy was imported')\n")
    (tmp_path / "medseg.py").write_text("raise SystemExit('the decoy was imported')\n")
    return tmp_path


@pytest.mark.slow
def test_the_wheel_holds_programs_configs_and_manifests(wheel: Path) -> None:
    names = set(ZipFile(wheel).namelist())
    for kind in ("configs", "data_manifests"):
        files = [path.relative_to(REPOSITORY) for path in (REPOSITORY / kind).rglob("*") if path.is_file()]
        assert {f"medseg/{path.as_posix()}" for path in files} <= names
    assert {"medseg/__init__.py", "medseg/py.typed", "pipelines/command.py"} <= names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"medseg", "pipelines"}
    assert any(name.endswith("licenses/LICENSE") for name in names)


@pytest.mark.slow
def test_the_command_works_from_a_folder_with_decoys(program: Path, empty: Path) -> None:
    assert "Medical image segmentation" in run(program, "--help", folder=empty)
    networks = json.loads(run(program, "list", "networks", "--json", folder=empty))
    assert "unet" in {entry["name"] for entry in networks["entries"]}
    assert json.loads(run(program, "schema", folder=empty))["title"] == "ExperimentConfig"


@pytest.mark.slow
def test_names_are_found_inside_the_package(program: Path, empty: Path) -> None:
    configs = json.loads(run(program, "list", "configs", "--json", folder=empty))["entries"]
    expected = {path.relative_to(REPOSITORY / "configs").with_suffix("").as_posix() for path in _shipped_configs()}
    assert {entry["name"] for entry in configs} == expected
    script = (
        "import json; from pipelines.locations import *;"
        "print(json.dumps([str(path) for path in [*shipped_configs().values(), *shipped_manifests().values()]]))"
    )
    python = program.parent / "python"
    paths = json.loads(run(python, "-P", "-c", script, folder=empty))
    assert paths
    assert [path for path in paths if not Path(path).is_relative_to(program.parents[1])] == []


def _shipped_configs() -> list[Path]:
    """The experiments; the lists that benchmarks go through lie apart."""
    return [path for path in (REPOSITORY / "configs").rglob("*.yaml") if path.parent.name != "benchmarks"]


def test_readme_opens_with_the_two_commands_that_ci_runs() -> None:
    shown = run("bash", REPOSITORY / ".ci" / "run", "commands", folder=REPOSITORY)
    assert shown.splitlines() == COMMANDS


def test_ci_locks_every_requirement() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    needed = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    needed += [line for lines in project["project"]["optional-dependencies"].values() for line in lines]
    lines = (REPOSITORY / ".ci" / "constraints.txt").read_text().splitlines()
    locked = [line for line in lines if line and not line.startswith("#")]
    assert [line for line in locked if not re.fullmatch(r"[\w.-]+==[\w.!]+", line)] == []
    names = {_normal(line.partition("==")[0]) for line in locked}
    assert len(names) == len(locked)
    assert {_normal(re.match(r"[\w.-]+", line)[0]) for line in needed} - names == set()  # type: ignore[index]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_version_is_in_the_changelog() -> None:
    from medseg import __version__

    assert f"## {__version__}" in (REPOSITORY / "CHANGELOG.md").read_text()
