"""The preflight: every file of a manifest opened and every doubt listed, before a network spends hours on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from medseg.data.cases import existing, label_mismatch, read_truth
from medseg.data.dataset import Case, DatasetInfo
from medseg.data.label_form import label_form_problem, read_label_values
from medseg.data.manifest import Manifest
from medseg.errors import DataError, ManifestError
from medseg.io import read_image
from medseg.volume import Segmentation, Volume, digest

Progress = Callable[[int, int, str], None]  # cases done, cases in all, the case's id


@dataclass(frozen=True)
class Finding:
    """One doubt. An error must be corrected before training; a warning is for a person to judge."""

    case: str
    file: str
    severity: Literal["error", "warning"]
    message: str


@dataclass(frozen=True)
class CaseFacts:
    """What a case's first image and its label hold."""

    case: str
    fold: int | None
    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    unit: str
    orientation: str
    channels: int
    intensity: tuple[float, float]  # lowest and highest value over the channels
    labels: Mapping[str, float] = field(default_factory=dict)  # name -> ml, or px2 for a picture


@dataclass(frozen=True)
class CheckReport:
    """All findings, by case, and the facts of every case that could be read."""

    findings: tuple[Finding, ...]
    facts: tuple[CaseFacts, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.severity == "error")


def check_manifest(manifest: Manifest, data_root: Path, progress: Progress | None = None) -> CheckReport:
    """Opens every file of a manifest and collects what is wrong; it raises for no case, so that all are seen."""
    findings: list[Finding] = []
    facts: list[CaseFacts] = []
    digests: dict[str, list[Case]] = defaultdict(list)
    for number, case in enumerate(manifest.cases):
        inspected = _inspect(manifest.dataset, case, data_root)
        findings += inspected.findings
        if inspected.facts is not None:
            facts.append(inspected.facts)
        if inspected.image_digest is not None:
            digests[inspected.image_digest].append(case)
        if progress is not None:
            progress(number + 1, len(manifest.cases), case.id)
    findings += _duplicates(digests.values())
    return CheckReport(tuple(sorted(findings, key=lambda one: (one.case, one.severity, one.file))), tuple(facts))


@dataclass(frozen=True)
class _Inspected:
    """One case's share of the report."""

    findings: list[Finding]
    facts: CaseFacts | None = None
    image_digest: str | None = None  # of all channels together


def _inspect(dataset: DatasetInfo, case: Case, data_root: Path) -> _Inspected:
    findings: list[Finding] = []
    volumes: list[Volume] = []
    for path, kept in zip(case.images, case.image_digests, strict=True):
        volume = _image(case, path, data_root, findings)
        if volume is not None:
            volumes.append(volume)
            _add(findings, case, path, list(_image_problems(dataset, case, volume, kept)))
    label = _label(dataset, case, data_root, findings)
    if len(volumes) < len(case.images):
        return _Inspected(findings)
    grid = volumes[0].geometry
    if label is not None and case.label is not None:
        if not grid.matches(label.geometry):
            _add(findings, case, case.label, [("error", label_mismatch(case, grid, label.geometry))])
        _add(findings, case, case.label, list(_label_problems(case, label)))
    together = "+".join(digest(volume.array, volume.geometry) for volume in volumes)
    return _Inspected(findings, _facts(case, volumes, label), together)


Problem = tuple[Literal["error", "warning"], str]


def _add(findings: list[Finding], case: Case, path: str, problems: Sequence[Problem]) -> None:
    findings += [Finding(case.id, path, severity, message) for severity, message in problems]


def _image(case: Case, path: str, data_root: Path, findings: list[Finding]) -> Volume | None:
    try:
        return read_image(existing(case, path, data_root))
    except (DataError, ManifestError) as error:
        _add(findings, case, path, [("error", str(error))])
        return None


def _label(dataset: DatasetInfo, case: Case, data_root: Path, findings: list[Finding]) -> Segmentation | None:
    """The label, where it can be used; the form of the file explains better why it cannot."""
    if case.label is None:
        return None
    try:
        path = existing(case, case.label, data_root)
        form = label_form_problem(read_label_values(path).array) if dataset.labels.is_exclusive else None
        if form is not None:
            _add(findings, case, case.label, [("error", f"{case.label}: {form}")])
            return None
        return read_truth(dataset, case, data_root)
    except (DataError, ManifestError) as error:
        _add(findings, case, case.label, [("error", str(error))])
        return None


def _image_problems(dataset: DatasetInfo, case: Case, volume: Volume, kept: str | None) -> Iterator[Problem]:
    expected = len(dataset.channels) if len(case.images) == 1 else 1
    if volume.geometry.dims != dataset.spatial_dims:
        yield "error", f"has {volume.geometry.dims} dimensions, dataset.yaml says {dataset.spatial_dims}"
    if volume.channels != expected:
        yield "error", f"holds {volume.channels} channels, not {expected} ({', '.join(dataset.channels)})"
    if not np.isfinite(volume.array).all():
        yield "error", "holds voxels that are NaN or infinite; replace them"
    elif any(channel.min() == channel.max() for channel in volume.array):
        yield "warning", "is constant: every voxel has the same value"
    if kept is None and dataset.layout == "table":
        yield "warning", "has no digest in cases.csv, so a change would go unseen; run `medseg manifest build`"
    if kept is not None and kept != digest(volume.array, volume.geometry):
        yield "error", "its voxels or affine changed since the manifest was written; restore the file"
    for note in volume.provenance.notes:
        yield "warning", note


def _label_problems(case: Case, label: Segmentation) -> Iterator[Problem]:
    if not label.array.any():
        yield "warning", "is empty: no voxel is labelled"
    if case.label_digest is not None and case.label_digest != digest(label.array, label.geometry):
        yield "error", "its voxels or affine changed since the manifest was written; restore the file"


def _facts(case: Case, volumes: Sequence[Volume], label: Segmentation | None) -> CaseFacts:
    grid = volumes[0].geometry
    sizes: dict[str, float] = {}
    if label is not None:
        unit = 1000.0 if grid.dims == 3 else 1.0
        sizes = {
            name: float(label.mask(name).sum()) * grid.voxel_volume / unit
            for name in label.annotated or label.labels.names
        }
    return CaseFacts(
        case=case.id,
        fold=case.fold,
        shape=grid.shape,
        spacing=tuple(float(size) for size in grid.spacing),
        unit=grid.unit,
        orientation=grid.orientation,
        channels=sum(volume.channels for volume in volumes),
        intensity=(min(float(one.array.min()) for one in volumes), max(float(one.array.max()) for one in volumes)),
        labels=sizes,
    )


def _duplicates(groups: Iterable[list[Case]]) -> list[Finding]:
    """The same image under two names: an error where one copy is trained on and the other validated on."""
    findings: list[Finding] = []
    for cases in groups:
        first = cases[0]
        for other in cases[1:]:
            leaks = other.fold != first.fold
            what = f"is the same image as case {first.id}"
            why = " in another fold: what is learned is scored on itself" if leaks else ""
            findings.append(
                Finding(other.id, other.images[0], "error" if leaks else "warning", f"{what}{why}; keep one of them")
            )
    return findings
