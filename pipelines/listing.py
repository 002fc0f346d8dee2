"""`medseg list`: the names that a config may use and the settings of each, straight from the catalogues."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

from medseg.config import Catalogue, Settings, read_yaml, suggestion
from medseg.data.manifest import DATASET
from medseg.errors import ConfigError, MedsegError
from pipelines.console import Console
from pipelines.locations import shipped_configs, shipped_manifests
from pipelines.reference import settings_of


class Entry(NamedTuple):
    """One line of a list; under `--json` its details are keys beside the other two."""

    name: str
    description: str
    details: Mapping[str, object] = {}


def listing(kind: str | None, name: str | None = None) -> dict[str, object]:
    """Prints the settings of one entry, the entries of one kind, or the kinds where none is given."""
    console = Console()
    if kind is None:
        console.say("medseg list " + "|".join(KINDS))
        return {"kinds": list(KINDS)}
    if kind not in KINDS:
        raise ConfigError(f"medseg list {kind}: nothing is called {kind!r}{suggestion(kind, KINDS)}")
    if name is not None:
        return _reference(kind, name, console)
    entries = KINDS[kind]()
    width = max((len(entry.name) for entry in entries), default=0)
    for entry in entries:
        console.say(f"{entry.name.ljust(width)}  {entry.description}".rstrip())
    return {
        "kind": kind,
        "entries": [{"name": entry.name, "description": entry.description, **entry.details} for entry in entries],
    }


def _reference(kind: str, name: str, console: Console) -> dict[str, object]:
    """Prints what an entry is and its settings: key, default, what is accepted, and a note where there is one."""
    configs = _configs_of(kind)
    if not configs:
        raise ConfigError(f"medseg list {kind} {name}: entries of {kind} have no settings; leave {name!r} out")
    if name not in configs:
        raise ConfigError(f"medseg list {kind} {name}: nothing is called {name!r}{suggestion(name, configs)}")
    about, settings = inspect.getdoc(configs[name]) or "", settings_of(configs[name])
    console.say(f"{name}: {about}\n")
    widths = [max(len(getattr(one, part)) for one in settings) for part in ("key", "default")] if settings else []
    for one in settings:
        cells = [text.ljust(width) for text, width in zip(one, widths, strict=False)]
        console.say("  ".join([*cells, one.values, *([f"# {one.note}"] if one.note else [])]))
    return {"kind": kind, "name": name, "description": about, "settings": [one._asdict() for one in settings]}


def _configs_of(kind: str) -> dict[str, type[Settings]]:
    """The config classes behind a kind's names; none for kinds that are no settings."""
    if kind == "settings":
        return _parts()
    if kind not in CATALOGUES:
        return {}
    module, name = CATALOGUES[kind]
    catalogue: Catalogue = getattr(importlib.import_module(module), name)
    return dict(catalogue)


def _described(kind: str) -> list[Entry]:
    return [Entry(name, _first_line(config.__doc__)) for name, config in _configs_of(kind).items()]


def _parts() -> dict[str, type[Settings]]:
    """The parts of an experiment that are no choice among several, and the experiment itself."""
    from medseg.experiment import ExperimentConfig

    fields = {key: field.annotation for key, field in ExperimentConfig.model_fields.items()}
    parts = {key: of for key, of in fields.items() if inspect.isclass(of) and issubclass(of, Settings)}
    choices = {key for key, of in parts.items() if inspect.isabstract(of)}
    return {"experiment": ExperimentConfig, **{key: of for key, of in parts.items() if key not in choices}}


def _networks() -> list[Entry]:
    """Each network: the dimensions that it exists in, the extra that one of them needs, whether it compiles whole."""
    from medseg.networks import NETWORKS

    entries = []
    for name, config in NETWORKS:
        needs = {dims: f" (extra {extra.name})" for dims, extra in config.extras.items()}
        marks = [f"{dims}D{needs.get(dims, '')}" for dims in config.dims()]
        missing = {extra.name: extra.command for extra in config.extras.values() if not extra.is_installed()}
        advice = f" [{'; '.join(missing.values())}]" if missing else ""
        details = {
            "spatial_dims": list(config.dims()),
            "extras": {f"{dims}D": extra.name for dims, extra in config.extras.items()},
            "missing": sorted(missing),
            "compiles": config.compiles,
        }
        entries.append(Entry(name, f"{', '.join(marks)}: {_first_line(config.__doc__)}{advice}", details))
    return entries


def _metrics() -> list[Entry]:
    from medseg.metrics import METRICS

    return [Entry(name, description) for name, description in METRICS.items()]


def _configs() -> list[Entry]:
    return [Entry(name, _first_comment(path)) for name, path in shipped_configs().items()]


def _manifests() -> list[Entry]:
    entries = []
    for name, folder in shipped_manifests().items():
        try:
            content = read_yaml(folder / DATASET)
            description = str(content.get("description") or content.get("title") or "")
        except MedsegError as error:
            description = f"cannot be read: {error}"
        entries.append(Entry(name, _first_line(description)))
    return entries


def _formats() -> list[Entry]:
    """What is read, by the extensions of `medseg.io.formats`, and what `medseg infer --format` writes."""
    from medseg.io.formats import EXTENSIONS
    from pipelines.infer import FORMATS

    read = {name: [one for one, of in EXTENSIONS.items() if of == name] for name in dict.fromkeys(EXTENSIONS.values())}
    said = {name: [f"read: {', '.join(extensions)}"] for name, extensions in read.items()}
    said["dicom"][0] += ", or a folder with a study"
    for name, description in FORMATS.items():
        said.setdefault(name, []).append(f"written: {description}")
    return [Entry(name, "; ".join(parts)) for name, parts in said.items()]


CATALOGUES = {
    "networks": ("medseg.networks", "NETWORKS"),
    "attentions": ("medseg.networks.attention", "ATTENTIONS"),
    "losses": ("medseg.losses", "LOSSES"),
    "optimizers": ("medseg.training.optimizers", "OPTIMIZERS"),
    "mixes": ("medseg.training.mixing", "MIXES"),
    "schedules": ("medseg.training.schedules", "SCHEDULES"),
    "intensities": ("medseg.data.intensity", "INTENSITIES"),
    "transforms": ("medseg.data.augmentation", "AUGMENTATIONS"),
    "postprocessing": ("medseg.postprocessing", "POSTPROCESSING"),
    "layouts": ("medseg.data.manifest_build", "LAYOUTS"),
}

KINDS: dict[str, Callable[[], list[Entry]]] = {
    **{kind: partial(_described, kind) for kind in CATALOGUES},
    "networks": _networks,
    "settings": partial(_described, "settings"),
    "metrics": _metrics,
    "configs": _configs,
    "manifests": _manifests,
    "formats": _formats,
}


def _first_line(text: str | None) -> str:
    lines = (text or "").strip().splitlines()
    return lines[0].strip() if lines else ""


def _first_comment(path: Path) -> str:
    """The first comment of a YAML file that is meant for people, editors' hints left out."""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            return ""
        text = line.lstrip("# ").strip()
        if text and not text.startswith("yaml-language-server"):
            return text
    return ""
