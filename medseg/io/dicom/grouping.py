"""What must not be stacked together comes apart: series, orientations, grids, echoes, phases."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from medseg.io.dicom.headers import Frame
from medseg.io.dicom.series import SAME_DIRECTION, Series
from medseg.io.dicom.wording import is_uid, shown_code, shown_uid

_SAME_SPACING = 1e-3  # relative
_SAME_POSITION = 1e-2  # of a pixel


def group(frames: Iterable[Frame], notes: tuple[str, ...] = ()) -> Iterator[Series]:
    """Series by study and series UID, their parts apart; where a UID is blank, the folder stands in for it."""
    groups: dict[Hashable, list[Frame]] = defaultdict(list)
    for frame in frames:
        header = frame.header
        blank = "" if is_uid(header.series_uid) and is_uid(header.study_uid) else str(header.file.parent)
        groups[header.study_uid, header.series_uid, blank].append(frame)
    for members in groups.values():
        first = members[0].header
        whole = Series(
            first.series_uid, first.study_uid, first.modality, first.description, tuple(members), notes=notes
        )
        usable = [frame for frame in members if frame.header.problem is None]
        broken = _broken(whole)
        if not usable:
            yield replace(whole, problem=broken)
        for part, frames_of_part in _parts(usable) if usable else ():
            problem = broken or _localizer(whole, frames_of_part)
            yield replace(whole, frames=tuple(frames_of_part), part=part, problem=problem)


def _broken(series: Series) -> str | None:
    """What is wrong with a file of a series; one bent or short file makes every part of it doubtful."""
    bad = sorted({frame.header.file: frame.header.problem for frame in series.frames if frame.header.problem}.items())
    if not bad:
        return None
    more = f" (and {len(bad) - 1} more files)" if len(bad) > 1 else ""
    return f"{series.name}: {bad[0][0].name} {bad[0][1]}{more}"


def _localizer(series: Series, frames: Sequence[Frame]) -> str | None:
    return f"{series.name}: is a localizer, no stack of slices" if all(f.is_localizer for f in frames) else None


Key = Callable[[Frame], str]


def _parts(frames: Sequence[Frame]) -> list[tuple[str, list[Frame]]]:
    """What must not be stacked together, apart, each part with the words that tell it from the others."""
    parts = [("", list(frames))]
    for key in (_grid, _orientation_key(frames), _spacing_key(frames), _echo_time, _stack):
        parts = [piece for part in parts for piece in _split(part, key)]
    phases = map(_phase_key, ("image type", *dict.fromkeys(name for frame in frames for name, _ in frame.phases)))
    for key in (_frame_of_reference, *phases):
        parts = [piece for part in parts for piece in _split_repeats(part, key)]
    return parts


def _split(part: tuple[str, list[Frame]], key: Key) -> list[tuple[str, list[Frame]]]:
    words, frames = part
    groups: dict[str, list[Frame]] = defaultdict(list)
    for frame in frames:
        groups[key(frame)].append(frame)
    if len(groups) == 1:
        return [part]
    return [(", ".join(filter(None, (words, name))), members) for name, members in sorted(groups.items())]


def _split_repeats(part: tuple[str, list[Frame]], key: Key) -> list[tuple[str, list[Frame]]]:
    """Splits where positions repeat and the key explains it: it makes no more groups than the place used most has.

    An attribute that changes from slice to slice would shatter the series for one slice sent twice, and one that
    some frames lack tells nothing: such repeats are left together, and the reader compares their pixels.
    """
    frames = part[1]
    repeats = _most_repeated(frames)
    if repeats == 1 or not all(map(key, frames)):
        return [part]
    pieces = _split(part, key)
    return pieces if len(pieces) <= repeats else [part]


def _most_repeated(frames: Sequence[Frame]) -> int:
    spacing = frames[0].spacing
    step = _SAME_POSITION * min(spacing) if spacing and min(spacing) > 0 else _SAME_POSITION
    placed = [frame.position for frame in frames if frame.position is not None]
    cells = Counter(tuple(np.round(np.divide(position, step)).tolist()) for position in placed)
    return max(cells.values(), default=1)


def _frame_of_reference(frame: Frame) -> str:
    """A series has one by definition (PS3.3 C.7.4.1), but some de-identified archives give each slice its own."""
    return f"frame of reference {shown_uid(frame.header.frame_of_reference)}"


def _grid(frame: Frame) -> str:
    header = frame.header
    return f"{header.columns} x {header.rows}" + (f" x {header.samples}" if header.samples > 1 else "")


def _orientation_key(frames: Sequence[Frame]) -> Key:
    """Frames of one orientation within rounding share a key; the first of a kind stands for it."""
    kinds = _kinds((frame.orientation for frame in frames), lambda a, b: bool(np.abs(a - b).max() <= SAME_DIRECTION))
    return lambda frame: f"orientation {kinds[frame.orientation]}"


def _spacing_key(frames: Sequence[Frame]) -> Key:
    kinds = _kinds((frame.spacing for frame in frames), lambda a, b: bool(np.allclose(a, b, rtol=_SAME_SPACING)))
    return lambda frame: f"spacing {kinds[frame.spacing]}"


Same = Callable[[np.ndarray, np.ndarray], bool]


def _kinds(values: Iterable[tuple[float, ...] | None], same: Same) -> dict[tuple[float, ...] | None, int]:
    """Each distinct value -> the number of the kind that it belongs to, counted from 1 in the order of the frames."""
    kinds: dict[tuple[float, ...] | None, int] = {}
    leaders: list[np.ndarray | None] = []
    for value in dict.fromkeys(values):
        array = None if value is None else np.asarray(value)
        for number, leader in enumerate(leaders):
            if (leader is None and array is None) or (leader is not None and array is not None and same(leader, array)):
                kinds[value] = number + 1
                break
        else:
            leaders.append(array)
            kinds[value] = len(leaders)
    return kinds


def _echo_time(frame: Frame) -> str:
    return "echo time unknown" if frame.echo_time is None else f"echo time {frame.echo_time:.2f} ms"


def _stack(frame: Frame) -> str:
    return f"stack {shown_code(frame.stack)}"


def _phase_key(name: str) -> Key:
    """Blank where a frame does not say."""
    if name == "image type":
        return lambda frame: "image type " + "/".join(map(shown_code, frame.image_type)) if frame.image_type else ""
    return lambda frame: f"{name} {dict(frame.phases)[name]:g}" if name in dict(frame.phases) else ""
