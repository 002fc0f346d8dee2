"""Which series lie in a folder: the tree is walked inside its bounds, and every file is accounted for."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from medseg.errors import DicomError, ReadError
from medseg.io.dicom.grouping import group
from medseg.io.dicom.headers import DICOMDIR_CLASS, Frame, Header, has_dicom_header, is_bare_dicom, read_frames
from medseg.io.dicom.series import Series

_BARE = "begins like DICOM but lacks the preamble of PS3.10 7.1; write it anew, for instance with DCMTK's dcmconv"


@dataclass(frozen=True)
class Refusal:
    """A file that belongs to no series, and why."""

    file: Path
    reason: str
    is_dicom: bool


@dataclass(frozen=True)
class Scan:
    """What a tree holds: nothing in it is lost silently."""

    series: tuple[Series, ...]
    refused: tuple[Refusal, ...]


def scan_series(folder: Path) -> list[Series]:
    """Every series in a tree, split where grid, echo or phase differ; damaged DICOM files as series with a problem.

    Files that are no DICOM at all, DICOMDIRs and links out of the tree are left out; `scan` names them too.
    Raises ReadError where the folder is absent.
    """
    found = scan(folder)
    damaged = [refusal for refusal in found.refused if refusal.is_dicom]
    return [*found.series, *map(_as_series, damaged)]


def scan(folder: Path) -> Scan:
    """The series of a tree or of one file, and every other file with the reason why it belongs to none."""
    frames: list[Frame] = []
    refused: list[Refusal] = []
    for file, reason in _walk(folder):
        if reason is not None:
            refused.append(Refusal(file, reason, is_dicom=False))
            continue
        try:
            if not has_dicom_header(file):
                bare = is_bare_dicom(file)
                refused.append(Refusal(file, f"{file}: {_BARE}" if bare else "is not a DICOM file", is_dicom=bare))
                continue
            found = read_frames(file)
        except DicomError as error:
            refused.append(Refusal(file, str(error), is_dicom=True))
            continue
        if found[0].header.sop_class == DICOMDIR_CLASS:
            refused.append(Refusal(file, "is a DICOMDIR", is_dicom=False))
        else:
            frames.extend(found)
    damaged = [refusal.file.name for refusal in refused if refusal.is_dicom]
    notes = (f"{len(damaged)} damaged files beside it, the first {damaged[0]}",) if damaged else ()
    return Scan(tuple(group(frames, notes)), tuple(refused))


def _walk(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Every file of a tree in the order of names, with the reason where it must not be opened."""
    try:
        root = folder.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise ReadError(f"{folder}: does not exist; give a folder of DICOM files, or one file") from error
    if not folder.is_dir():
        yield folder, None
        return
    for walked, folders, files in os.walk(root, followlinks=False, onerror=_closed):
        folders.sort()
        parent = Path(walked)
        shown = folder / parent.relative_to(root)
        for name in sorted(files + [name for name in folders if (parent / name).is_symlink()]):
            yield shown / name, _reason_not_to_open(parent / name, root)


def _closed(error: OSError) -> None:
    """A folder that cannot be listed may hold slices of any series, so nothing around it can be trusted."""
    raise ReadError(f"{error.filename}: cannot be opened ({error.strerror}); give read rights, or move it away")


def _reason_not_to_open(path: Path, root: Path) -> str | None:
    try:
        mode = path.stat().st_mode
        inside = path.resolve().is_relative_to(root)
    except (OSError, RuntimeError):
        return "is a link that leads nowhere"
    if path.is_symlink() and (not inside or stat.S_ISDIR(mode)):
        return "is a link out of the folder, which is not followed"
    return None if stat.S_ISREG(mode) else "is no regular file"


def _as_series(refusal: Refusal) -> Series:
    return Series("", "", "", "", (Frame(Header(refusal.file, problem=refusal.reason)),), problem=refusal.reason)
