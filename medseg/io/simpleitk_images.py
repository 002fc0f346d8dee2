"""Reads NRRD and MetaImage (.mha, .mhd) through SimpleITK, which never sees a file whose header was not checked first.

SimpleITK's world is LPS; the affine returned is RAS. Components of a voxel become channels, and so does a fourth axis.
NIfTI and DICOM are never handed to it: it damages the process on some odd NIfTI files, and merges DICOM series.
Decoding here takes a path and gives an array, so that it can move into a process of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medseg.errors import GeometryError
from medseg.geometry import Geometry
from medseg.io.checks import require_finite
from medseg.io.formats import refusal
from medseg.io.text_headers import TextHeader, read_metaimage_header, read_nrrd_header
from medseg.volume import Provenance, Volume

if TYPE_CHECKING:
    import SimpleITK


def read_nrrd(path: Path) -> Volume:
    """An .nrrd or .nhdr file. Raises ReadError or GeometryError."""
    header = read_nrrd_header(path)
    has_place = "space" in header.fields or "space dimension" in header.fields
    notes = () if has_place else ("the header names no space: its axes were taken as left, posterior, superior",)
    return _read(header, "nrrd", "NrrdImageIO", notes)


def read_metaimage(path: Path) -> Volume:
    """An .mha or .mhd file. Raises ReadError or GeometryError."""
    return _read(read_metaimage_header(path), "metaimage", "MetaImageIO", ())


def _read(header: TextHeader, name: str, image_io: str, notes: tuple[str, ...]) -> Volume:
    path = header.path
    header.require_enough_data()
    array, affine = _decode(path, image_io)
    if np.issubdtype(array.dtype, np.complexfloating):
        raise refusal(path, "holds complex numbers", "store magnitude or phase as real numbers")
    if array.dtype == np.float64:
        with np.errstate(over="ignore"):
            array = array.astype(np.float32)
    require_finite(array, str(path))
    try:
        geometry = Geometry(array.shape[1:], affine)
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from error
    if geometry.is_sheared:
        notes = (*notes, "the affine is sheared: the voxel axes are not at right angles")
    files = (path,) if header.data_path == path else (path, header.data_path)
    return Volume(array, geometry, Provenance(str(path), files, name, notes=notes))


def _decode(path: Path, image_io: str) -> tuple[np.ndarray, np.ndarray]:
    """The voxels `(C, X, Y[, Z])` and their affine in RAS."""
    import SimpleITK

    SimpleITK.ProcessObject.SetGlobalWarningDisplay(False)
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO(image_io)
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        if reader.GetDimension() not in (2, 3, 4):
            raise refusal(path, f"has {reader.GetDimension()} axes", "store one image of two or three axes a file")
        image = reader.Execute()
    except RuntimeError as error:
        raise refusal(path, f"cannot be decoded: {_reason(error)}", "fetch or convert the file again") from error
    return _channels_first(image, path), _ras_affine(image, path)


def _channels_first(image: SimpleITK.Image, path: Path) -> np.ndarray:
    import SimpleITK

    array = SimpleITK.GetArrayFromImage(image)  # (T, Z, Y, X, components): reversed axes
    dims, components = image.GetDimension(), image.GetNumberOfComponentsPerPixel()
    if dims == 4 and components > 1:
        raise refusal(path, "has a fourth axis and several components", "store one time point a file")
    if dims == 4:
        return np.asarray(array.transpose(0, 3, 2, 1))
    if components == 1:
        return np.asarray(array.T[np.newaxis])
    return np.asarray(array.transpose(dims, *range(dims - 1, -1, -1)))


def _ras_affine(image: SimpleITK.Image, path: Path) -> np.ndarray:
    """Direction, spacing and origin as one affine, its first two world axes turned from LPS to RAS."""
    dims = image.GetDimension()
    affine = np.eye(dims + 1)
    directions = np.array(image.GetDirection()).reshape(dims, dims)
    affine[:dims, :dims] = directions * np.array(image.GetSpacing())
    affine[:dims, dims] = image.GetOrigin()
    affine[:2] *= -1
    if dims < 4:
        return affine
    if np.abs([*affine[3, :3], *affine[:3, 3]]).max() > 1e-6:
        raise GeometryError(f"{path}: its fourth axis leans into space; store one time point a file")
    return np.delete(np.delete(affine, 3, axis=0), 3, axis=1)


def _reason(error: RuntimeError) -> str:
    """The last line of ITK's message, without the place in ITK's source."""
    last = [line for line in str(error).splitlines() if line.strip()][-1]
    return last.split("ITK ERROR:")[-1].strip()[:160]
