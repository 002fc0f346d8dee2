"""What there is to segment: image files and DICOM studies among what a person names, none left out without a word."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.config import validate
from medseg.data.file_names import is_junk
from medseg.errors import ConfigError, ReadError
from medseg.io.dicom.rule import SeriesRule
from medseg.io.formats import EXTENSIONS, cannot_open, extension_of, format_of, is_image_file, stem_of

if TYPE_CHECKING:
    from medseg.io.dicom import Series
    from medseg.volume import Volume


@dataclass(frozen=True)
class Source:
    """One thing to segment: an image file, or a folder with a DICOM study; `name` names its results."""

    path: Path
    name: str
    is_dicom: bool
    left_out: tuple[str, ...] = ()  # pictures on top of a study's folder, which are no part of it

    def read(self, rule: SeriesRule) -> tuple[Volume, Series | None]:
        """The image and, for DICOM, the series that it came from."""
        from medseg.io import read_image

        if not self.is_dicom:
            return read_image(self.path), None
        from medseg.io.dicom import read_series, scan_series, select_series

        series = select_series(scan_series(self.path), rule, str(self.path))
        return read_series(series), series


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


def list_sources(inputs: Sequence[Path], formats: Sequence[str]) -> list[Source]:
    """Each file, and what each folder holds: one DICOM study, or the image files that lie in it.

    A folder with DICOM files anywhere below it is a study; pictures on top of it are left out. With volume files on
    top of it, it could be meant either way: ConfigError. Files of the operating system (`._x.nii.gz`) do not count.
    """
    found: list[Source] = []
    for path in inputs:
        if not os.path.exists(path):  # Path.exists raises for a name that is too long
            raise ConfigError(f"input {path} does not exist; give image files or folders of DICOM studies")
        found += _in_folder(path) if path.is_dir() else [Source(path, stem_of(path) or path.name, _is_dicom(path))]
    other = next((source.path for source in found if not source.is_dicom), None)
    if "dicom-seg" in formats and other is not None:
        raise ConfigError(f"--format dicom-seg needs a DICOM series to refer to, {other} is none; use --format nifti")
    return _named_apart(found)


def _in_folder(folder: Path) -> list[Source]:
    try:
        entries = sorted(entry for entry in folder.iterdir() if not is_junk(entry.name))
        images = [entry for entry in entries if entry.is_file() and is_image_file(entry)]
        slice_file = next((file for file in _files_below(folder) if _is_dicom(file)), None) if images else None
    except OSError as error:
        raise cannot_open(Path(error.filename or folder), error) from error
    volumes = [image for image in images if EXTENSIONS[extension_of(image) or ""] != "picture"]
    if slice_file is not None and volumes:
        shown = ", ".join(one.name for one in volumes[:3]) + (f" and {len(volumes) - 3} more" if volumes[3:] else "")
        raise ConfigError(
            f"input {folder}: holds image files ({shown}) and DICOM files ({slice_file.relative_to(folder)} ...); "
            "give the image files by name, or the study in a folder of its own"
        )
    if images and slice_file is None:
        return [Source(image, stem_of(image) or image.name, is_dicom=False) for image in images]
    name = folder.resolve().name if folder.name in ("", "..") else folder.name
    return [Source(folder, name, is_dicom=True, left_out=tuple(image.name for image in images))]


def _files_below(folder: Path) -> Iterator[Path]:
    """The files of a tree, those of the operating system left out. Raises OSError for a folder that is closed."""

    def refuse(error: OSError) -> None:
        raise error

    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders.sort()
        yield from (Path(parent) / name for name in sorted(files) if not is_junk(name))


def _is_dicom(path: Path) -> bool:
    """Whether a file is DICOM; one of no known format is none, and reading it says why."""
    try:
        return format_of(path) == "dicom"
    except ReadError:
        return False


def _named_apart(sources: Sequence[Source]) -> list[Source]:
    """The sources with a number behind a name that was there before."""
    names: set[str] = set()
    apart = []
    for source in sources:
        numbered = (source.name if count == 1 else f"{source.name}-{count}" for count in range(1, len(sources) + 1))
        name = next(one for one in numbered if one not in names)
        names.add(name)
        apart.append(Source(source.path, name, source.is_dicom, source.left_out))
    return apart
