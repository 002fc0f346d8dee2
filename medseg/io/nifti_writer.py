"""Writes NIfTI files that other tools read the same way: one affine in both forms, a small type, the same bytes twice.

Labels of an exclusive set are integers of the smallest type that holds them; an overlapping set is uint8
`(X, Y, Z, S)`. The channels of a volume are the fourth axis. 2D grids in mm are one slice `(X, Y)`, or `(X, Y, 1, C)`
with several channels, which reads back as a slice of a 3D volume.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medseg.errors import ConfigError
from medseg.io.atomic import atomic_path
from medseg.io.checks import smallest_integer
from medseg.volume import Segmentation, Volume

if TYPE_CHECKING:
    import nibabel

_SCANNER = 1  # NIFTI_XFORM_SCANNER_ANAT
_NIFTI1_LONGEST_AXIS = 32767  # dim is int16 in NIfTI-1
_DESCRIP_BYTES = 79  # of 80, the last is 0
_RESEARCH_USE = "; research use"


def write_nifti(value: Volume | Segmentation, path: Path) -> Path:
    """Writes an image or its labels as .nii or .nii.gz, whole or not at all. Raises ConfigError and WriteError."""
    name = path.name.lower()
    if not name.endswith((".nii", ".nii.gz")):
        raise ConfigError(f"{path}: NIfTI files end in .nii or .nii.gz; change the name")
    if value.geometry.unit != "mm":
        raise ConfigError(f"{path}: a picture in pixels has no place in mm; write it as .png")
    image = _image(value)
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        if name.endswith(".gz"):
            with gzip.GzipFile(filename="", mode="wb", fileobj=stream, compresslevel=6, mtime=0) as packed:
                image.to_stream(packed)
        else:
            image.to_stream(stream)
    return path


def _image(value: Volume | Segmentation) -> nibabel.Nifti1Image:
    import nibabel

    array = _channels_last(value)
    kind = nibabel.Nifti1Image if max(array.shape) <= _NIFTI1_LONGEST_AXIS else nibabel.Nifti2Image
    affine = value.geometry.affine_4x4
    image = kind(array, affine, dtype=array.dtype)
    image.header.set_sform(affine, _SCANNER)
    image.header.set_qform(affine, 0 if value.geometry.is_sheared else _SCANNER, strip_shears=True)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = _description(value)
    if isinstance(value, Segmentation) and value.labels.is_exclusive:
        image.header.set_intent("label")
    return image


def _channels_last(value: Volume | Segmentation) -> np.ndarray:
    """The array in a type that NIfTI knows, channels or overlapping labels behind the grid."""
    array = value.array
    if isinstance(value, Segmentation) and value.labels.is_exclusive:
        return array.astype(smallest_integer(int(array.min()), int(array.max())), copy=False)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8)
    elif np.issubdtype(array.dtype, np.floating):
        array = array.astype(np.float32, copy=False)
    if array.shape[0] == 1 and isinstance(value, Volume):
        return array[0]
    last = np.moveaxis(array, 0, -1)
    return last[:, :, np.newaxis, :] if value.geometry.dims == 2 else last


def _description(value: Volume | Segmentation) -> bytes:
    """The header's 80 bytes of text: who made it, cut where it is too long, and that it is for research."""
    maker = (value.provenance.made_by or "medseg").encode("ascii", "replace")
    return maker[: _DESCRIP_BYTES - len(_RESEARCH_USE)] + _RESEARCH_USE.encode("ascii")
