"""Files and folders in, files out: the one door through which images and labels enter and leave.

Images: NIfTI, NRRD, MetaImage, PNG, TIFF (and JPEG, BMP), DICOM files and folders. `medseg.io.formats` lists the
extensions; each format's module states its rules. Reading a module of this package imports no reader: the libraries
behind them are imported when a file asks for them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from medseg.errors import LabelError, ReadError
from medseg.io.formats import format_of
from medseg.labels import LabelSet
from medseg.volume import Segmentation, Volume

if TYPE_CHECKING:
    from medseg.io.dicom.rule import SeriesRule

__all__ = ["read_image", "read_label", "write_nifti", "write_picture"]


def read_image(path: Path, rule: SeriesRule | None = None) -> Volume:
    """The image in a file of any known format, or in a folder of DICOM files, of which `rule` picks the series.

    Integers without scaling keep their type; scaled values and 64-bit floats become float32. Raises DataError for what
    is absent, damaged, ambiguous, or holds values that are no numbers.
    """
    if path.is_dir():
        return _read_dicom(path, rule)
    match format_of(path):
        case "nifti":
            from medseg.io.nifti import read_nifti

            return read_nifti(path)
        case "nrrd":
            from medseg.io.simpleitk_images import read_nrrd

            return read_nrrd(path)
        case "metaimage":
            from medseg.io.simpleitk_images import read_metaimage

            return read_metaimage(path)
        case "picture":
            from medseg.io.picture_files import read_picture

            return read_picture(path)
        case "dicom":
            return _read_dicom(path, rule)
        case name:
            raise ReadError(f"{path}: format {name} has no reader; convert it to NIfTI")


def read_label(path: Path, labels: LabelSet) -> Segmentation:
    """The labels in a file, exactly, checked against `labels`; the smallest integers that hold them, or bool.

    Floats within 1e-3 of integers count as integers. Raises LabelError for other values, ReadError for a bad file.
    """
    from medseg.io.label_files import as_segmentation

    if path.is_dir() or format_of(path) == "dicom":
        raise LabelError(f"{path}: labels are not read from DICOM; convert the SEG or RTSTRUCT to NIfTI first")
    if format_of(path) == "picture":
        from medseg.io.picture_files import read_picture_label

        return as_segmentation(read_picture_label(path), labels)
    return as_segmentation(read_image(path), labels)


def write_nifti(value: Volume | Segmentation, path: Path) -> Path:
    """Writes an image or its labels as .nii or .nii.gz, whole or not at all; the same value gives the same bytes.

    Raises ConfigError for another extension or a grid in pixels, WriteError where the disk refuses.
    """
    from medseg.io.nifti_writer import write_nifti as write

    return write(value, path)


def write_picture(segmentation: Segmentation, path: Path) -> Path:
    """Writes a 2D label as a grey PNG whose levels are the label values. Raises ConfigError and WriteError."""
    from medseg.io.picture_files import write_picture as write

    return write(segmentation, path)


def _read_dicom(path: Path, rule: SeriesRule | None) -> Volume:
    from medseg.io.dicom import read_dicom

    return read_dicom(path, rule)
