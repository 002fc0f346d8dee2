"""Where a stack of slices lies: ordered by position, its gaps checked, its place turned from DICOM's LPS to RAS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medseg.errors import DicomError
from medseg.geometry import Geometry
from medseg.io.dicom.headers import Frame
from medseg.io.dicom.series import SAME_DIRECTION, Series

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_UNIT = 1e-2  # how far cosines may be from unit length and right angles before they mean nothing
_SAME_PLACE = 1e-2  # of a pixel: slices nearer than this lie at one place
_TILT = 1e-3  # sideways drift by distance along the normal; 0.06 degrees, the rounding of headers
_DRIFT = 2e-2  # of a pixel: sideways drift that rounding of positions may make in any stack
_UNEVEN = 5e-2  # of the spacing: how far a slice may lie off the even grid


@dataclass(frozen=True, eq=False)
class Stack:
    """Slices in the order of the volume's last axis; each place holds one frame, or several that must be equal."""

    places: tuple[tuple[Frame, ...], ...]
    geometry: Geometry
    notes: tuple[str, ...]

    @property
    def frames(self) -> tuple[Frame, ...]:
        """One frame a slice: the first of each place."""
        return tuple(place[0] for place in self.places)


def stack_series(series: Series) -> Stack:
    """The slices of a series in order along the slice normal, and their grid in RAS mm. Reads headers alone.

    Array axis 0 runs along a row (column index), axis 1 along a column (row index), axis 2 along rows x columns, so
    the grid is right-handed whatever the order of the files. Raises DicomError for missing, uneven, tilted or mixed
    slices, naming them by their place in the stack, counted from 1.
    """
    frames = series.frames
    rows, columns = _common_axes(series)
    normal = np.cross(rows, columns)
    positions = np.array([frame.position for frame in frames])
    order = np.argsort(positions @ normal, kind="stable")
    spacing = frames[0].spacing
    if spacing is None or min(spacing) <= 0:
        raise DicomError(f"{series.name}: PixelSpacing is missing or not above 0, voxels have no size; export it anew")
    places = _places([frames[index] for index in order], _SAME_PLACE * min(spacing))
    points = np.array([place[0].position for place in places])
    step, notes = _step(series, places, points, normal, min(spacing))
    affine_lps = np.eye(4)
    affine_lps[:3, 0] = rows * spacing[1]
    affine_lps[:3, 1] = columns * spacing[0]
    affine_lps[:3, 2] = step
    affine_lps[:3, 3] = points[0]
    header = frames[0].header
    geometry = Geometry((header.columns, header.rows, len(places)), LPS_TO_RAS @ affine_lps)
    return Stack(tuple(places), geometry, notes)


def _common_axes(series: Series) -> tuple[np.ndarray, np.ndarray]:
    """The unit vectors along a row and a column that all slices share."""
    for frame in series.frames:
        if frame.position is None or frame.orientation is None:
            missing = "ImagePositionPatient" if frame.position is None else "ImageOrientationPatient"
            raise DicomError(f"{series.name}: {frame.header.file.name} has no {missing}, so no place; export it anew")
    orientations = np.array([frame.orientation for frame in series.frames])
    if np.abs(orientations - orientations[0]).max() > SAME_DIRECTION:
        raise DicomError(f"{series.name}: its slices have different orientations and are no volume; exclude it")
    frame = series.frames[0]
    if any((f.header.rows, f.header.columns) != (frame.header.rows, frame.header.columns) for f in series.frames):
        raise DicomError(f"{series.name}: its slices have different sizes and are no volume; exclude it")
    rows, columns = orientations[0, :3], orientations[0, 3:]
    lengths = np.linalg.norm(rows), np.linalg.norm(columns)
    if max(abs(length - 1) for length in lengths) > _UNIT or abs(rows @ columns) > _UNIT:
        raise DicomError(f"{series.name}: ImageOrientationPatient holds no unit vectors at right angles")
    return rows / lengths[0], columns / lengths[1]


def _places(frames: Sequence[Frame], tolerance: float) -> list[tuple[Frame, ...]]:
    """Frames in order, those at one place together."""
    places: list[tuple[Frame, ...]] = []
    for frame in frames:
        if places and _distance(places[-1][0], frame) <= tolerance:
            places[-1] = (*places[-1], frame)
        else:
            places.append((frame,))
    return [tuple(sorted(place, key=lambda frame: (frame.header.file, frame.index))) for place in places]


def _distance(one: Frame, other: Frame) -> float:
    return float(np.linalg.norm(np.subtract(one.position or (), other.position or ())))


def _step(
    series: Series, places: Sequence[tuple[Frame, ...]], points: np.ndarray, normal: np.ndarray, pixel: float
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The vector from a slice to the next, LPS mm. Raises DicomError where there is no single one."""
    if len(points) == 1:
        thickness = places[0][0].thickness
        if thickness is None or thickness <= 0:
            raise DicomError(f"{series.name}: is one slice without SliceThickness; its depth is unknown")
        return normal * thickness, (f"one slice; its depth is SliceThickness, {thickness:g} mm",)
    heights = points @ normal
    _check_gaps(series, heights)
    step = (points[-1] - points[0]) / (len(points) - 1)
    along = float(step @ normal)
    sideways = points - points[0] - np.outer(heights - heights[0], normal)
    drift = float(np.linalg.norm(sideways[-1])) / (heights[-1] - heights[0])
    if drift > _TILT and np.linalg.norm(sideways[-1]) > _DRIFT * pixel:
        raise DicomError(
            f"{series.name}: its slices are tilted by {np.degrees(np.arctan(drift)):.1f} degrees against their normal "
            "(gantry tilt); resample it without tilt first, sheared grids are not supported yet"
        )
    uneven = np.linalg.norm(sideways - np.outer(heights - heights[0], step - normal * along) / along, axis=1)
    worst = int(uneven.argmax())
    if uneven[worst] > max(_DRIFT * pixel, _TILT * along) + 0.05 * pixel:
        raise DicomError(f"{series.name}: slice {worst + 1} is shifted sideways by {uneven[worst]:.3g} mm")
    return step, ()


def _check_gaps(series: Series, heights: np.ndarray) -> None:
    """Raises DicomError where slices are missing or uneven: one lies off the even grid from first to last."""
    even = np.linspace(heights[0], heights[-1], len(heights))
    spacing = (heights[-1] - heights[0]) / (len(heights) - 1)
    gaps = np.diff(heights)
    if np.abs(heights - even).max() <= _UNEVEN * spacing:
        return
    expected = float(np.sort(gaps)[(len(gaps) - 1) // 2])  # the lower median: a gap that is there, not a mean of two
    worst = int(np.abs(gaps - expected).argmax())
    where = (
        f"{series.name}: has a {gaps[worst]:.4g} mm gap between slices {worst + 1} and {worst + 2} of {len(heights)}"
    )
    others = int((np.abs(gaps - expected) > _UNEVEN * expected).sum()) - 1
    more = f", and {others} more uneven" if others > 0 else ""
    raise DicomError(f"{where} (expected {expected:.4g} mm){more}; fetch the missing slices, or exclude the series")
