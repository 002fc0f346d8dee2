"""A classic DICOM series made from a volume, so that the demo and the tests need nobody's data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field

from medseg.config import Settings
from medseg.errors import DicomError, WriteError
from medseg.geometry import Geometry
from medseg.io.atomic import atomic_path
from medseg.io.dicom.geometry import LPS_TO_RAS
from medseg.io.dicom.uids import derive_uid
from medseg.volume import Volume

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_CLASSES = {"MR": "1.2.840.10008.5.1.4.1.1.4", "CT": "1.2.840.10008.5.1.4.1.1.2"}
_LOWEST, _HIGHEST = -32768, 32767


class SeriesDescription(Settings):
    """What a generated series says of itself; equal descriptions give equal UIDs."""

    description: str = Field(default="Phantom", max_length=64)
    modality: Literal["MR", "CT"] = "MR"
    study: str = "study"  # series of the same study text share study, patient and frame of reference
    number: int = Field(default=1, ge=1)  # SeriesNumber


def write_series(volume: Volume, folder: Path, description: SeriesDescription | None = None) -> list[Path]:
    """Writes one file a slice, 16 bit signed, and gives their paths in the order of the volume's last axis.

    Rows of the pictures run along array axis 0, columns along axis 1, slices along axis 2. DICOM knows no handedness:
    a left-handed volume comes back from `read_series` with its last axis the other way round, each voxel in its place
    in the patient. Whole numbers of 16 bit are kept exactly; others are rounded to 65,535 steps of a RescaleSlope.
    Raises DicomError for a volume of several channels, sheared or without mm.
    """
    chosen = description or SeriesDescription()
    _check(volume)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error
    slope, intercept = _scale(volume.array)
    stored = np.rint((volume.array[0].astype(np.float64) - intercept) / slope).astype("<i2")
    common = _common(chosen, volume.geometry)
    if slope != 1 or intercept != 0 or chosen.modality == "CT":
        common.RescaleSlope, common.RescaleIntercept, common.RescaleType = _text(slope), _text(intercept), "US"
    return [
        _write_slice(common, stored[:, :, index].T, _position(volume.geometry, index), index, folder)
        for index in range(stored.shape[2])
    ]


def _check(volume: Volume) -> None:
    geometry, source = volume.geometry, volume.provenance.source
    if volume.channels != 1 or geometry.dims != 3 or geometry.unit != "mm" or geometry.is_sheared:
        raise DicomError(
            f"{source}: {volume.channels} channels on {geometry.describe()} cannot be a DICOM series; "
            "give one channel on an unsheared 3D grid in mm"
        )
    if not np.isfinite(volume.array).all():
        raise DicomError(f"{source}: holds voxels that are not finite; replace them first")


def _scale(array: np.ndarray) -> tuple[float, float]:
    """Slope and intercept with value = stored * slope + intercept, as the 16 characters of a DS hold them."""
    lowest, highest = float(array.min()), float(array.max())
    if lowest >= _LOWEST and highest <= _HIGHEST and bool((np.rint(array) == array).all()):
        return 1.0, 0.0
    slope = float(_text((highest - lowest) / (_HIGHEST - _LOWEST))) or 1.0
    return slope, float(_text(lowest - _LOWEST * slope))


def _text(number: float) -> str:
    from pydicom.valuerep import format_number_as_ds

    return format_number_as_ds(float(number))


def _position(geometry: Geometry, index: int) -> list[str]:
    """ImagePositionPatient of a slice: the centre of its first voxel, LPS mm."""
    centre = geometry.world(np.array([[0, 0, index]], dtype=float))[0]
    return [_text(value) for value in LPS_TO_RAS[:3, :3] @ centre]


def _common(chosen: SeriesDescription, geometry: Geometry) -> Dataset:
    """What all slices share."""
    from pydicom.dataset import Dataset

    directions, spacing = LPS_TO_RAS[:3, :3] @ geometry.directions, geometry.spacing
    common = Dataset()
    common.SpecificCharacterSet = "ISO_IR 192"
    common.ImageType = ["DERIVED", "SECONDARY", "OTHER"]
    common.SOPClassUID = _CLASSES[chosen.modality]
    common.StudyDate, common.StudyTime = "20000101", "120000"
    common.AccessionNumber = common.ReferringPhysicianName = common.PatientBirthDate = common.PatientSex = ""
    common.Modality, common.Manufacturer = chosen.modality, "medseg"
    common.StudyDescription = "Generated, for research use"
    common.SeriesDescription = chosen.description
    common.PatientName, common.PatientID = "Phantom^Generated", derive_uid("patient", chosen.study)[-16:]
    common.StudyInstanceUID = derive_uid("study", chosen.study)
    common.SeriesInstanceUID = derive_uid("series", chosen.model_dump_json())
    common.FrameOfReferenceUID = derive_uid("frame of reference", chosen.study)
    common.StudyID, common.SeriesNumber, common.PositionReferenceIndicator = "1", chosen.number, ""
    common.ImageOrientationPatient = [_text(value) for value in directions[:, :2].T.ravel()]
    common.PixelSpacing = [_text(spacing[1]), _text(spacing[0])]
    common.SliceThickness = common.SpacingBetweenSlices = _text(spacing[2])
    common.SamplesPerPixel, common.PhotometricInterpretation = 1, "MONOCHROME2"
    common.BitsAllocated, common.BitsStored, common.HighBit, common.PixelRepresentation = 16, 16, 15, 1
    if chosen.modality == "MR":
        common.ScanningSequence, common.SequenceVariant, common.ScanOptions = "GR", "NONE", ""
        common.MRAcquisitionType, common.EchoTime, common.RepetitionTime = "3D", "3", "10"
        common.EchoTrainLength = ""
    else:
        common.KVP, common.AcquisitionNumber = "", ""
    return common


def _write_slice(common: Dataset, rows: np.ndarray, position: list[str], index: int, folder: Path) -> Path:
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    one = Dataset()
    one.update(common)
    one.SOPInstanceUID = derive_uid("slice", str(common.SeriesInstanceUID), str(index))
    one.InstanceNumber = index + 1
    one.ImagePositionPatient = position
    one.Rows, one.Columns = rows.shape
    one.PixelData = np.ascontiguousarray(rows).tobytes()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder / f"{index + 1:04d}.dcm"
    with atomic_path(path) as temporary:
        one.save_as(temporary, enforce_file_format=True)
    return path
