"""`medseg infer`: images or DICOM studies in, segmentations on their own grids out; one bad input stops no other."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.config import suggestion, validate
from medseg.errors import ConfigError, DataError, ModelError, ReadError
from medseg.io.dicom.rule import SeriesRule
from pipelines.console import Console

if TYPE_CHECKING:
    from medseg.io.dicom import Series
    from medseg.volume import Segmentation, Volume

FORMATS = {
    "nifti": "NIfTI on the source grid (PNG for pictures, which know no mm)",
    "dicom-seg": "DICOM SEG, BINARY, that refers to the source series",
}


def infer(
    model: Path,
    inputs: list[Path],
    output: Path,
    formats: list[str],
    series: Sequence[str],
    modality: str | None,
    assignments: list[str],
    device: str,
) -> dict[str, Any]:
    """Segments every input and writes it before the next is read; inputs that fail are named at the end."""
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(f"--format {name!r} is not known{suggestion(name, FORMATS)}")
    sources = list_sources(inputs, formats)
    from medseg.devices import choose_device
    from medseg.experiment import changed
    from medseg.io.atomic import atomic_write_text
    from medseg.trained_model import load_model
    from pipelines.locations import output_folder

    console, target = Console(), choose_device(device)
    trained = load_model(model)
    predictor = trained.predictor(target, changed(trained.card.experiment, assignments))
    rule = series_rule(series, modality)
    output_folder(output)
    done: list[dict[str, Any]] = []
    failed: list[tuple[Source, str]] = []
    with console.progress(len(sources), "segmenting") as steps:
        for source in sources:
            try:
                image, chosen = source.read(rule)
                segmentation = trained.segment(image, predictor)
                files = write(segmentation, chosen, output, source.name, formats)
                done.append(_entry(source, segmentation, files))
            except (DataError, ModelError) as error:
                failed.append((source, _reason(source, error)))
            steps.advance(1, source.name)
    record = {"model": trained.card.title, "cases": done, "failed": {str(s.path): reason for s, reason in failed}}
    atomic_write_text(output / "inference.json", json.dumps(record, indent=2) + "\n")
    if done:
        _show(console, done, output)
    if failed:
        reasons = "; ".join(reason for _, reason in failed[:5]) + ("; ..." if len(failed) > 5 else "")
        raise DataError(f"{len(failed)} of {len(sources)} inputs could not be segmented: {reasons}")
    return record


def series_rule(parts: Sequence[str], modality: str | None) -> SeriesRule:
    """`--series`: a pattern for the description, or key=value for any other key of the rule."""
    content: dict[str, str] = {} if modality is None else {"modality": modality}
    for part in parts:
        key, equals, value = part.partition("=")
        if equals and key.isidentifier():
            content[key] = value
        else:
            content["description"] = part
    return validate(SeriesRule, content, "--series")


@dataclass(frozen=True)
class Source:
    """One thing to segment: an image file, or a folder with a DICOM study; `name` names its results."""

    path: Path
    name: str
    is_dicom: bool

    def read(self, rule: SeriesRule) -> tuple[Volume, Series | None]:
        """The image and, for DICOM, the series that it came from."""
        from medseg.io import read_image

        if not self.is_dicom:
            return read_image(self.path), None
        from medseg.io.dicom import read_series, scan_series, select_series

        series = select_series(scan_series(self.path), rule, str(self.path))
        return read_series(series), series


def list_sources(inputs: Sequence[Path], formats: Sequence[str]) -> list[Source]:
    """What to segment: each file; in a folder its image files, or where it has none, the DICOM study that it is."""
    found: list[tuple[Path, bool]] = []
    for path in inputs:
        if not os.path.exists(path):  # Path.exists raises for a name that is too long
            raise ConfigError(f"input {path} does not exist; give image files or folders of DICOM studies")
        images = (
            [one for one in sorted(path.iterdir()) if one.is_file() and _is_image(one)] if path.is_dir() else [path]
        )
        found += [(one, _is_dicom(one)) for one in images] if images else [(path, True)]
    if "dicom-seg" in formats and not all(is_dicom for _, is_dicom in found):
        other = next(path for path, is_dicom in found if not is_dicom)
        raise ConfigError(f"--format dicom-seg needs a DICOM series to refer to, {other} is none; use --format nifti")
    names: set[str] = set()
    sources = []
    for path, is_dicom in found:
        stem = path.resolve().name if path.is_dir() else path.name.removesuffix(".gz").rsplit(".", 1)[0] or path.name
        unique = next(one for one in _numbered(stem) if one not in names)
        names.add(unique)
        sources.append(Source(path, unique, is_dicom))
    return sources


def write(
    segmentation: Segmentation, series: Series | None, output: Path, name: str, formats: Sequence[str]
) -> list[Path]:
    """The files of one result, each whole or not at all."""
    from medseg.io import write_nifti, write_picture
    from medseg.io.dicom import write_dicom_seg

    files: list[Path] = []
    if "dicom-seg" in formats and series is not None:  # first: where it is refused, nothing is left
        files.append(write_dicom_seg(segmentation, series, output / f"{name}_seg.dcm"))
    if "nifti" in formats and segmentation.geometry.unit == "px":
        files.append(write_picture(segmentation, output / f"{name}_label.png"))
    elif "nifti" in formats:
        files.append(write_nifti(segmentation, output / f"{name}_label.nii.gz"))
    return files


def _reason(source: Source, error: Exception) -> str:
    """Why an input failed, its path in front where the error names a series only."""
    return str(error) if str(source.path) in str(error) else f"{source.path}: {error}"


def _is_dicom(path: Path) -> bool:
    """Whether a file is DICOM; one of no known format is none, and reading it says why."""
    from medseg.io.formats import format_of

    try:
        return format_of(path) == "dicom"
    except ReadError:
        return False


def _is_image(path: Path) -> bool:
    from medseg.io.formats import EXTENSIONS, extension_of

    extension = extension_of(path)
    return extension is not None and EXTENSIONS[extension] != "dicom" and not extension.startswith(".img")


def _numbered(stem: str) -> list[str]:
    return [stem, *(f"{stem}-{number}" for number in range(2, 10_000))]


def _entry(source: Source, segmentation: Segmentation, files: Sequence[Path]) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": source.name, "input": str(source.path), "files": [str(file) for file in files]}
    if segmentation.geometry.dims == 3 and segmentation.geometry.unit == "mm":
        entry["volume_ml"] = {name: round(segmentation.volume_ml(name), 4) for name in segmentation.labels.names}
    if segmentation.provenance.notes:  # what reading decided, for instance that left and right are unknown
        entry["notes"] = list(segmentation.provenance.notes)
    return entry


def _show(console: Console, done: Sequence[dict[str, Any]], output: Path) -> None:
    names = list(done[0].get("volume_ml", {})) if done else []
    rows = [[one["name"], *(f"{one['volume_ml'][name]:.2f}" for name in names)] for one in done]
    if rows:
        console.table(["case", *(f"{name} ml" for name in names)], rows)
    console.say(f"segmentations: {output}")
