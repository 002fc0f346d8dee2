"""Reads NIfTI-1 and NIfTI-2, and refuses what is damaged or ambiguous before any memory is taken for it.

nibabel understands the header; the voxels are read here, so that a short, corrupt or boastful file is found out.

Which affine counts: the sform where its code is above 0, else the qform where its code is above 0, else the spacing
alone as nibabel places it (x to the left, the grid's centre at the origin), with a note that left and right are not
known; a voxel size of 0 is refused. Where both are coded and differ by more than a tenth of a voxel at a corner of the
grid, a note says so.
Coordinates in metres or micrometres become mm; of an unknown unit they are taken as mm.

Which axes count: `(X, Y, Z)` has one channel, `(X, Y, Z, C)` and `(X, Y, Z, 1, C)` have C, RGB has three; singleton
axes at the end fall away. `(X, Y)` is a 2D volume where the slice lies in the world's x-y plane, and is refused where
it is tilted. An alpha channel is dropped where it is opaque everywhere, and refused otherwise.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from medseg.errors import GeometryError
from medseg.geometry import Geometry
from medseg.io.checks import MAX_DEFLATE_RATIO, require_finite
from medseg.io.formats import cannot_open, one_line, refusal
from medseg.io.nifti_header import FETCH_AGAIN, NiftiHeader, files_of, open_bytes, read_header, require_readable
from medseg.volume import Provenance, Volume

_CHUNK = 2**22  # bytes or voxels worked on at a time
_DISAGREEMENT = 0.1  # voxels; what two tools' rounding of a quaternion can explain stays below
_UNIT_MM = {"meter": 1000.0, "mm": 1.0, "micron": 0.001, "unknown": 1.0}


def read_nifti(path: Path) -> Volume:
    """A NIfTI file, or the pair that a .hdr or .img belongs to. Integers without scaling stay as they are stored;
    scaled values and float64 become float32. Raises ReadError or GeometryError."""
    header = read_header(*files_of(path))
    require_readable(header)
    geometry, notes = _geometry(header)
    stored = _read_voxels(header)
    array = _channels_first(header, stored)
    require_finite(array, str(path))
    provenance = Provenance(str(path), header.files, "nifti", notes=(*header.notes, *notes))
    return Volume(array.reshape(array.shape[0], *geometry.shape, order="F"), geometry, provenance)


def _geometry(header: NiftiHeader) -> tuple[Geometry, tuple[str, ...]]:
    """The grid by the rule of this module, and what a reader of it should know."""
    path, nifti, shape = header.path, header.nifti, header.shape
    grid = shape[:3] if len(shape) >= 3 else (*shape, 1)
    affine, notes = _affine(header, grid)
    unit = str(nifti.get_xyzt_units()[0]) if int(nifti["xyzt_units"]) % 8 in (0, 1, 2, 3) else "unknown"
    if _UNIT_MM[unit] != 1.0:
        affine = np.diag([_UNIT_MM[unit]] * 3 + [1.0]) @ affine
        notes = (*notes, f"coordinates in {unit} were turned into mm")
    geometry = _grid(grid, affine, path)
    if geometry.is_sheared:
        notes = (*notes, "the affine is sheared: the voxel axes are not at right angles")
    return (_planar(geometry, path), notes) if len(shape) == 2 else (geometry, notes)


def _affine(header: NiftiHeader, grid: tuple[int, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    nifti = header.nifti
    sform, qform = int(nifti["sform_code"]), int(nifti["qform_code"])
    if sform > 0:
        affine = np.asarray(nifti.get_sform(), dtype=np.float64)
        return affine, _disagreement(header, grid, affine) if qform > 0 else ()
    if not header.has_spacing:
        raise refusal(header.path, "has neither an sform nor a voxel size", "correct its header")
    if qform > 0:
        try:
            return np.asarray(nifti.get_qform(), dtype=np.float64), ()
        except (ValueError, np.linalg.LinAlgError) as error:
            raise refusal(header.path, f"its qform is damaged: {one_line(error)}", "correct its header") from error
    affine = np.asarray(nifti.get_base_affine(), dtype=np.float64)
    return affine, ("neither sform nor qform is coded: only the spacing is known, left and right are not",)


def _disagreement(header: NiftiHeader, grid: tuple[int, ...], sform: np.ndarray) -> tuple[str, ...]:
    try:
        other = Geometry(grid, np.asarray(header.nifti.get_qform(), dtype=np.float64))
    except (ValueError, np.linalg.LinAlgError, GeometryError):
        return ("the qform is damaged; the sform was taken",)
    if _grid(grid, sform, header.path).matches(other, _DISAGREEMENT):
        return ()
    return ("sform and qform disagree; the sform was taken",)


def _grid(shape: tuple[int, ...], affine: np.ndarray, path: Path) -> Geometry:
    try:
        return Geometry(shape, affine)
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from error


def _planar(geometry: Geometry, path: Path) -> Geometry:
    """The 2D grid of a single slice `(X, Y)` in the world's x-y plane."""
    affine = geometry.affine
    if np.abs([*affine[2, :2], *affine[:2, 2]]).max() > 1e-6 * geometry.spacing.max():
        raise GeometryError(f"{path}: is one slice that is tilted in the patient; store it with the shape (X, Y, 1)")
    return _grid(geometry.shape[:2], affine[np.ix_([0, 1, 3], [0, 1, 3])], path)


def _read_voxels(header: NiftiHeader) -> np.ndarray:
    """The stored values in one row, in native byte order."""
    path, dtype = header.files[-1], header.dtype
    needed = math.prod(header.shape) * dtype.itemsize
    try:
        offset = int(header.nifti.get_data_offset())
        with open_bytes(path) as stream:
            limit = path.stat().st_size * (MAX_DEFLATE_RATIO if isinstance(stream, gzip.GzipFile) else 1)
            if offset < 0 or offset + needed > limit:
                raise refusal(
                    path, f"is too short for the {needed} bytes of voxels that its header claims", FETCH_AGAIN
                )
            values = np.empty(needed, dtype=np.uint8)
            filled = _fill(stream, offset, memoryview(values.data))
            if filled < needed:
                raise refusal(path, f"ends after {filled} of {needed} bytes of voxels", FETCH_AGAIN)
    except (OSError, EOFError, zlib.error) as error:
        raise cannot_open(path, error) from error
    except (OverflowError, ValueError) as error:
        raise refusal(path, f"its data offset is damaged: {one_line(error)}", FETCH_AGAIN) from error
    except MemoryError as error:
        raise refusal(path, f"needs {needed / 2**30:.1f} GiB of memory", "crop it, or use a larger machine") from error
    if dtype.names is not None:
        return values
    stored = values.view(dtype)
    return stored if dtype.isnative else stored.byteswap(inplace=True).view(dtype.newbyteorder("="))


def _fill(stream: IO[bytes], offset: int, target: memoryview) -> int:
    """Reads from `offset` on until `target` is full; the bytes read. Goes on to the end so that gzip can check them."""
    while offset > 0:
        skipped = len(stream.read(min(offset, _CHUNK)))
        if not skipped:
            return 0
        offset -= skipped
    filled = 0
    while filled < len(target):
        part = stream.read(min(len(target) - filled, _CHUNK))
        if not part:
            break
        target[filled : filled + len(part)] = part
        filled += len(part)
    if isinstance(stream, gzip.GzipFile):
        stream.read(_CHUNK)
    return filled


def _channels_first(header: NiftiHeader, stored: np.ndarray) -> np.ndarray:
    """`(C, X, Y[, Z])` of the stored row of values, scaled where the header says so."""
    shape, dtype = header.shape, header.dtype
    if dtype.names is not None:
        colours = stored.reshape((len(dtype.names), *shape), order="F")
        return _without_alpha(colours, header.path) if len(dtype.names) == 4 else colours
    array = _scaled(header, stored).reshape(shape, order="F")
    if len(shape) <= 3:
        return array[np.newaxis]
    return np.moveaxis(array.reshape(*shape[:3], shape[-1], order="F"), -1, 0)


def _without_alpha(colours: np.ndarray, path: Path) -> np.ndarray:
    if (colours[3] != 255).any():
        raise refusal(path, "has an alpha channel that is not opaque everywhere", "store it as RGB")
    return colours[:3]


def _scaled(header: NiftiHeader, stored: np.ndarray) -> np.ndarray:
    """Real values. A slope of 0 means "not scaled" (NIfTI-1 standard, scl_slope); one that is no number is refused."""
    slope, inter = float(header.nifti["scl_slope"]), float(header.nifti["scl_inter"])
    if slope == 0 or (slope == 1 and inter == 0):
        with np.errstate(over="ignore"):
            return stored.astype(np.float32) if stored.dtype.kind == "f" else stored
    if not (math.isfinite(slope) and math.isfinite(inter)):
        raise refusal(header.path, f"has scl_slope {slope} and scl_inter {inter}", "set them to 1 and 0, if so meant")
    scaled = np.empty(stored.size, dtype=np.float32)
    with np.errstate(over="ignore"):
        for start in range(0, stored.size, _CHUNK):
            part = slice(start, start + _CHUNK)
            scaled[part] = stored[part].astype(np.float64) * slope + inter
    return scaled
