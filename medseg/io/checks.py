"""Checks of voxel values that every reader shares, so that a bad value is refused in one way and one wording."""

from __future__ import annotations

import numpy as np

from medseg.errors import LabelError, ReadError

MAX_DEFLATE_RATIO = 1032  # zlib's upper bound of output to input: zlib.net/zlib_tech.html
INTEGER_TOLERANCE = 1e-3  # label values nearer to an integer are float noise of a tool that stores floats


def non_finite(array: np.ndarray) -> int:
    """How many values are NaN or infinite."""
    if not np.issubdtype(array.dtype, np.inexact):
        return 0
    return sum(int(part.size - np.isfinite(part).sum()) for part in np.atleast_1d(array))


def require_finite(array: np.ndarray, where: str) -> None:
    """Raises ReadError where a value is NaN or infinite, with their number."""
    count = non_finite(array)
    if count:
        raise ReadError(
            f"{where}: {count} of {array.size} voxels are NaN or infinite as 32-bit floats; "
            "replace them by real values, or exclude the file"
        )


def as_integers(array: np.ndarray, where: str) -> np.ndarray:
    """Label values as the smallest of uint8, int16, int32, int64 that holds them.

    Floats count as integers within 1e-3 (0.99999997 is 1). Raises LabelError where they are further off.
    """
    if np.issubdtype(array.dtype, np.inexact):
        rounded = np.rint(array)
        strays = ~(np.abs(array - rounded) <= INTEGER_TOLERANCE) | (np.abs(rounded) > 2**53)
        if strays.any():
            first = float(array[strays].flat[0])
            raise LabelError(
                f"{where}: {int(strays.sum())} label voxels hold no integer (for instance {first:g}), as interpolated "
                "or lossy files do; resample labels with nearest neighbour and store integers"
            )
        array = rounded
    low, high = (array.min(), array.max()) if array.size else (0, 0)
    return array.astype(smallest_integer(int(low), int(high)), copy=False)


def smallest_integer(low: int, high: int) -> np.dtype:
    """The smallest of uint8, int16, int32, int64 for values from `low` to `high`: types that every tool reads."""
    if low >= 0 and high <= 255:
        return np.dtype(np.uint8)
    for kind in (np.int16, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return np.dtype(kind)
    return np.dtype(np.int64)
