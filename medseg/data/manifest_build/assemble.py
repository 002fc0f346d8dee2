"""From the files that a layout found to a manifest: opens each once, for its digest, its grid and its values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import Field

from medseg.config import Settings
from medseg.data.cases import existing, label_mismatch
from medseg.data.dataset import Case, DatasetInfo, case_id_problem
from medseg.data.file_names import list_folders
from medseg.data.folds import NNUNET_FOLDS, assign_folds
from medseg.data.label_form import label_form_problem, read_label_values
from medseg.data.manifest import Manifest
from medseg.data.manifest_build import LAYOUTS
from medseg.data.manifest_build.base import Found, LayoutConfig, shorten
from medseg.errors import ConfigError, DataError, ManifestError
from medseg.io import read_image
from medseg.io.checks import as_integers
from medseg.labels import Label, LabelSet
from medseg.volume import digest

Progress = Callable[[int, int, str], None]  # cases done, cases in all, the case's id


class BuildOptions(Settings):
    """What a person decides about the manifest to be written."""

    name: str | None = None  # None: the folder's own name
    folds: int = Field(default=NNUNET_FOLDS, ge=0)  # 0: none; ignored where the layout has its own
    skip_unmatched: bool = False  # leave out what cannot be paired or read, and say so


@dataclass(frozen=True)
class BuildResult:
    """A manifest ready to be written; what was skipped because it did not fit, and what was left out on purpose."""

    manifest: Manifest
    skipped: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Seen:
    """What the files of one case hold."""

    case: Case
    channels: int  # of its only file, or of all
    dims: int
    values: tuple[int, ...]


def detect_layout(source: Path) -> LayoutConfig:
    """The first layout that recognises a folder, with its default settings."""
    _require_folder(source)
    for _, entry in LAYOUTS:
        layout = entry(name=entry.model_fields["name"].default)
        if isinstance(layout, LayoutConfig) and layout.recognises(source):
            return layout
    raise ManifestError(
        f"{source} (folders: {shorten(list_folders(source)) or 'none'}): looks like none of the layouts "
        f"{', '.join(LAYOUTS.names())}; name one with --layout, and where its files are with --set, for instance "
        "--layout folders --set images=img --set labels=truth"
    )


def build_manifest(
    source: Path, layout: LayoutConfig | None, options: BuildOptions, progress: Progress | None = None
) -> BuildResult:
    """The manifest of a folder of images and labels; `layout` None detects it.

    Raises ManifestError that names every file which fits nowhere, unless `options.skip_unmatched`.
    """
    _require_folder(source)
    layout = detect_layout(source) if layout is None else layout
    found = layout.find(source)
    problems = list(found.unmatched)
    seen: list[_Seen] = []
    for number, case in enumerate(found.cases):
        try:
            seen.append(_look(case, source))
        except DataError as error:
            problems.append(str(error))
        if progress is not None:
            progress(number + 1, len(found.cases), case.id)
    seen, odd = _uniform(seen, found)
    problems += odd
    if problems and not options.skip_unmatched:
        raise ManifestError(
            f"{source} (layout {layout.name}): {len(problems)} files or cases do not fit: {shorten(problems, 12)}; "
            "correct them, or leave them out with --skip-unmatched"
        )
    if not seen:
        why = f" ({shorten(problems, 4)})" if problems else ""
        raise ManifestError(
            f"{source} (layout {layout.name}): no case has an image and a label that fit{why}; try another --layout"
        )
    dataset = _dataset(source, options, found, seen)
    cases = _with_folds([one.case for one in seen], options)
    manifest = Manifest(dataset, tuple(sorted(cases, key=lambda case: case.id)), source)
    return BuildResult(manifest, tuple(problems), (*found.notes, *_value_notes(found, seen)))


def _require_folder(source: Path) -> None:
    if not source.is_dir():
        raise ManifestError(f"{source}: is no folder; give the one that holds the data set")


def _look(case: Case, source: Path) -> _Seen:
    """Opens a case's files. Raises DataError where one cannot be read or does not fit the other."""
    problem = case_id_problem(case.id)
    if problem is not None:
        raise DataError(f"case {problem}")
    if not case.images:
        raise DataError(f"case {case.id} has a label ({case.label}) but no image")
    volumes = [read_image(existing(case, path, source)) for path in case.images]
    digests = tuple(digest(volume.array, volume.geometry) for volume in volumes)
    values: tuple[int, ...] = ()
    label_digest = None
    if case.label is not None:
        label = read_label_values(existing(case, case.label, source))
        form = label_form_problem(label.array)
        if form is not None:
            raise DataError(f"{case.label}: {form}")
        if not volumes[0].geometry.matches(label.geometry):
            raise DataError(label_mismatch(case, volumes[0].geometry, label.geometry))
        array = as_integers(label.array[0], case.label)
        values = tuple(int(value) for value in np.unique(array))
        label_digest = digest(array, label.geometry)
    checked = replace(case, image_digests=digests, label_digest=label_digest)
    return _Seen(checked, sum(volume.channels for volume in volumes), volumes[0].geometry.dims, values)


def _uniform(seen: Sequence[_Seen], found: Found) -> tuple[list[_Seen], list[str]]:
    """The cases that are like the first in dimensions and channels and hold known label values, and the others."""
    kept, problems = [], []
    known = {0, *found.label_names.values(), *(value for united in found.regions.values() for value in united)}
    known |= set() if found.ignore is None else {found.ignore}
    for one in seen:
        strange = sorted(set(one.values) - known) if len(known) > 1 else []
        expected = len(found.channels) or seen[0].channels
        if one.dims != seen[0].dims:
            problems.append(f"{one.case.images[0]} has {one.dims} dimensions, the first case {seen[0].dims}")
        elif one.channels != expected:
            problems.append(f"{one.case.images[0]} has {one.channels} channels, not {expected}")
        elif strange:
            problems.append(f"{one.case.label} holds the values {shorten(map(str, strange))} that no name is given to")
        else:
            kept.append(one)
    return kept, problems


def dataset_name(source: Path, options: BuildOptions) -> str:
    """What the manifest calls the data set."""
    return options.name or source.resolve().name


def _dataset(source: Path, options: BuildOptions, found: Found, seen: Sequence[_Seen]) -> DatasetInfo:
    values = sorted({value for one in seen for value in one.values} - {0})
    about = found.about
    try:
        return DatasetInfo(
            name=dataset_name(source, options),
            version=about.get("version", "1"),
            licence=about.get("licence", "unknown"),
            source=about.get("source", "unknown"),
            description=about.get("description", ""),
            spatial_dims=3 if seen[0].dims == 3 else 2,
            channels=found.channels or _channel_names(seen[0].channels),
            labels=_label_set(source, found, values),
        )
    except ValueError as error:
        raise ConfigError(f"{source}: {' '.join(str(error).split())}; set --name or correct its labels") from error


def _channel_names(count: int) -> tuple[str, ...]:
    """Names where nothing gives one: an image, colours, or numbers."""
    if count == 1:
        return ("image",)
    return ("red", "green", "blue") if count == 3 else tuple(f"channel_{number}" for number in range(count))


def _label_set(source: Path, found: Found, values: Sequence[int]) -> LabelSet:
    """The labels by the names that the data give, else by the values found in them."""
    named: Mapping[str, int] = found.label_names or {
        f"label_{value}": value for value in values if value != found.ignore and not found.regions
    }
    names = {value: name for name, value in named.items()}
    united = {value for region in found.regions.values() for value in region}
    names |= {value: f"label_{value}" for value in sorted(united - names.keys() - {0})}
    if not names:
        raise ManifestError(f"{source}: every label is empty (all 0); there is nothing to learn")
    labels = tuple(Label(name=name, value=value) for value, name in sorted(names.items()))
    regions = {name: tuple(names[value] for value in region if value) for name, region in found.regions.items()}
    return LabelSet(labels=labels, regions=regions, ignore=found.ignore)


def _value_notes(found: Found, seen: Sequence[_Seen]) -> tuple[str, ...]:
    """In how many cases each unnamed value occurs: one in few cases may be a slip of the annotator's brush."""
    counts = Counter(value for one in seen for value in one.values if value)
    if found.label_names or len(counts) < 2:
        return ()
    listed = [f"{value} in {count}" for value, count in sorted(counts.items())]
    return (f"label values by number of cases, of {len(seen)}: {shorten(listed, 20)}",)


def _with_folds(cases: Sequence[Case], options: BuildOptions) -> list[Case]:
    """The cases in folds by patient, unless the layout gave folds already or none are wanted."""
    if options.folds == 0 or any(case.fold is not None for case in cases):
        return list(cases)
    folds = assign_folds((case.patient for case in cases), options.folds)
    return [replace(case, fold=folds[case.patient]) for case in cases]
