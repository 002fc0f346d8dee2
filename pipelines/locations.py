"""Finds configs and manifests by path or by name, from a checkout as from an installed package."""

from __future__ import annotations

import importlib.resources
import os
from pathlib import Path

from medseg.config import suggestion
from medseg.data.manifest import DATASET
from medseg.errors import ConfigError

CONFIG_SUFFIXES = (".yaml", ".yml")
BENCHMARKS = "benchmarks"  # folder of configs/ with the lists that `medseg benchmark` goes through, no experiments


def shipped(kind: str) -> Path | None:
    """The folder of shipped "configs" or "data_manifests": inside the installed package, or beside a checkout's."""
    package = Path(str(importlib.resources.files("medseg")))
    checkout = package.parent
    if (package / kind).is_dir():
        return package / kind
    if (checkout / "pyproject.toml").is_file() and (checkout / kind).is_dir():
        return checkout / kind
    return None


def shipped_configs() -> dict[str, Path]:
    """Name -> file of each shipped experiment; one in a sub-folder is called `folder/name`."""
    folder = shipped("configs")
    files = {path.relative_to(folder): path for path in sorted(folder.rglob("*.yaml"))} if folder else {}
    return {name.with_suffix("").as_posix(): path for name, path in files.items() if name.parts[0] != BENCHMARKS}


def find_benchmark(name: str) -> Path:
    """The file of a shipped list that a benchmark goes through. Raises ConfigError where the package lacks it."""
    path = (shipped("configs") or Path("configs")) / BENCHMARKS / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"{path} is missing; install medseg again, or give a list of your own")
    return path


def shipped_manifests() -> dict[str, Path]:
    """Name -> folder of each shipped manifest."""
    folder = shipped("data_manifests")
    return {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{DATASET}"))} if folder else {}


def find_config(name: str) -> Path:
    """The file of a config, given its path or the name of a shipped one. Raises ConfigError with the near names."""
    path = Path(name).expanduser()
    if path.is_file():
        return path
    known = shipped_configs()
    if name in known:
        return known[name]
    if path.is_dir():
        raise ConfigError(f"config {name!r} is a folder; give a YAML file in it")
    raise _unknown("config", name, known, path, [entry for entry in _beside(path) if entry.endswith(CONFIG_SUFFIXES)])


def find_manifest(name: str) -> Path:
    """The folder of a manifest, given its path, its dataset.yaml or the name of a shipped one. Raises ConfigError."""
    path = Path(name).expanduser()
    if path.name == DATASET and path.is_file():
        return path.parent
    known = shipped_manifests()
    if (path / DATASET).is_file() or (path.is_dir() and name not in known):
        return path
    if name in known:
        return known[name]
    raise _unknown("manifest", name, known, path, _beside(path))


def output_folder(path: Path) -> Path:
    """The folder for a program's results, made where it is absent. Raises ConfigError where it cannot be made."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"--output {path}: cannot be made ({error.strerror}); choose another folder") from error
    return path


def _unknown(kind: str, name: str, known: dict[str, Path], path: Path, beside: list[str]) -> ConfigError:
    """What to say of a name: the near files for a path, the near shipped names for a name."""
    if os.sep in name or path.suffix in CONFIG_SUFFIXES:
        near = suggestion(path.name, beside) if 0 < len(beside) <= 20 else "; check the path"
        stem = path.with_suffix("").name if path.suffix in CONFIG_SUFFIXES else path.name
        also = f"; or give the shipped {kind} by its name, {stem!r}" if stem in known else ""
        return ConfigError(f"{kind} {name!r} does not exist{near}{also}")
    return ConfigError(
        f"{kind} {name!r} is neither a path nor a shipped {kind}{suggestion(name, known) or '; give a path'}"
    )


def _beside(path: Path) -> list[str]:
    """Names in the folder where `path` should lie, "" where that folder is absent too."""
    try:
        return sorted(entry.name for entry in path.parent.iterdir())
    except OSError:
        return []
