"""A series as a Volume: every rule of the room in one paragraph, in the order in which it is applied."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from medseg.errors import DicomError
from medseg.io.dicom.geometry import Stack, stack_series
from medseg.io.dicom.headers import Frame
from medseg.io.dicom.pixels import PixelReader, fill_padding, same_values
from medseg.io.dicom.rule import SeriesRule
from medseg.io.dicom.scanning import scan_series
from medseg.io.dicom.selection import select_series
from medseg.io.dicom.series import Series
from medseg.io.dicom.wording import is_uid
from medseg.volume import Provenance, Volume


def read_dicom(path: Path, rule: SeriesRule | None = None) -> Volume:
    """The volume of the one series that a rule picks out of a folder, a study or a single file."""
    return read_series(select_series(scan_series(path), rule, str(path)))


def read_series(series: Series) -> Volume:
    """A series as float32 `(C, X, Y, Z)`: X along a row, Y along a column, Z along rows x columns; colour as channels.

    Slices are ordered by position, never by number. Raises DicomError for a series that is damaged, mixed, tilted,
    uneven or incomplete; what was decided on the way is in `provenance.notes`.
    """
    if series.refusal is not None:
        raise DicomError(series.refusal)
    if len({frame.header.samples for frame in series.frames}) > 1:
        raise DicomError(f"{series.name}: mixes grey and colour slices; they are no volume")
    stack = stack_series(series)
    slices, doubled = _slices(series, stack)
    padded = fill_padding(slices)
    notes = [*series.notes, *stack.notes, *dict.fromkeys(note for f in stack.frames for note in f.header.notes)]
    if doubled:
        notes.append(f"{doubled} of {len(slices)} slices found more than once with equal pixels; one of each was kept")
    if padded:
        notes.append(f"{padded} voxels of PixelPaddingValue were set to the smallest other value, {slices.min():g}")
    references = {frame.header.frame_of_reference for frame in stack.frames}
    if len(references) > 1:
        notes.append(f"its slices name {len(references)} frames of reference; as one series they are taken as one")
    if any(frame.header.photometric == "MONOCHROME1" for frame in stack.frames):
        notes.append("MONOCHROME1: small values are meant to be shown bright; values are as stored")
    provenance = Provenance(
        source=series.uid if is_uid(series.uid) else str(series.files[0].parent),
        files=tuple(dict.fromkeys(frame.header.file for frame in stack.frames)),
        format="dicom",
        modality=series.modality or None,
        notes=tuple(notes),
    )
    return Volume(slices.transpose(1, 2, 3, 0), stack.geometry, provenance)


def _slices(series: Series, stack: Stack) -> tuple[np.ndarray, int]:
    """Values `(Z, C, X, Y)` and how many places had equal frames. Raises DicomError where they differ."""
    first = stack.frames[0].header
    slices = np.empty((len(stack.places), first.samples, first.columns, first.rows), dtype=np.float32)
    reader, doubled = PixelReader(), 0
    for index, place in enumerate(stack.places):
        several = [reader.values(frame) for frame in place]
        if not same_values(several):
            raise DicomError(
                f"{series.name}: {len(place)} different images lie at slice {index + 1} ({_named(place)}); "
                "keep the right one, or split its phases into series of their own"
            )
        doubled += len(place) > 1
        slices[index] = several[0]
    return slices, doubled


def _named(place: tuple[Frame, ...]) -> str:
    return ", ".join(frame.header.file.name for frame in place[:3]) + (", ..." if len(place) > 3 else "")
