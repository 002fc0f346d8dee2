"""What a SEG repeats of the images that it was made from: checked, and nothing made up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from medseg.errors import DicomError
from medseg.io.dicom.geometry import Stack
from medseg.io.dicom.headers import Frame, read_frames
from medseg.io.dicom.series import Series
from medseg.io.dicom.tolerance import damage, quiet
from medseg.io.dicom.uids import derive_uid
from medseg.io.dicom.wording import is_uid, shown_uid

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Type 2 in the Patient and Study modules (PS3.3 C.7.1.1, C.7.2.1): they must be there and may be blank.
_MAY_BE_BLANK = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName"),
)
_OPTIONAL = (
    *("IssuerOfPatientID", "PatientAge", "PatientSize", "PatientWeight", "StudyDescription", "SeriesNumber"),
    *("Manufacturer", "ManufacturerModelName", "PositionReferenceIndicator"),
    *("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod"),
)
_SEXES = ("M", "F", "O", "")


def source_datasets(series: Series, stack: Stack) -> list[Dataset]:
    """A clean dataset for each source image, in the order of the slices; a multi-frame file gives one.

    Values that break their format are left blank where the standard lets them be. A FrameOfReferenceUID that is
    missing, or another for each slice, is derived from study and series UID, the same each time: the images of a series
    share a frame of reference by definition (PS3.3 C.7.4.1), though its name was not written. Raises DicomError where
    an identity is missing or damaged.
    """
    for what, uid in (("study", series.study_uid), ("series", series.uid)):
        if not is_uid(uid):
            raise DicomError(
                f"{series.name}: its {what} UID is {shown_uid(uid)}, so no SEG can refer to it; restore it"
            )
    references = {frame.header.frame_of_reference for frame in stack.frames}
    derived = derive_uid("frame of reference", series.study_uid, series.uid)
    reference = (references.pop() or derived) if len(references) == 1 else derived
    multi_frame = any(frame.is_in_groups for frame in stack.frames)
    if multi_frame and len({frame.header.file for frame in stack.frames}) > 1:
        raise DicomError(f"{series.name}: is spread over several multi-frame files; a SEG refers to one")
    first_of_file = {frame.header.file: frame for frame in reversed(stack.frames)}
    ordered = [first_of_file[file] for file in dict.fromkeys(frame.header.file for frame in stack.frames)]
    distance = float(stack.geometry.spacing[2])
    return [_clean(series, frame, reference, multi_frame, frame.thickness or distance) for frame in ordered]


def _clean(series: Series, frame: Frame, reference: str, multi_frame: bool, thickness: float) -> Dataset:
    from pydicom import dcmread
    from pydicom.dataset import Dataset

    header = frame.header
    if not is_uid(header.sop_uid) or not is_uid(header.sop_class):
        raise DicomError(f"{series.name}: {header.file.name} has no valid SOP class and instance UID; restore them")
    with quiet():
        try:
            source = dcmread(header.file, stop_before_pixels=True)
            clean = Dataset()
            for keyword in _MAY_BE_BLANK:
                setattr(clean, keyword, _valid(source, keyword))
            if clean.PatientID is None and source.get("PatientID"):
                raise DicomError(f"{header.file}: its PatientID breaks the format of DICOM; correct it at the source")
            for keyword in _OPTIONAL:
                value = _valid(source, keyword)
                if value is not None:
                    setattr(clean, keyword, value)
        except damage() as error:
            raise DicomError(f"{header.file}: its header can no longer be read ({type(error).__name__})") from error
        clean.SOPClassUID, clean.SOPInstanceUID = header.sop_class, header.sop_uid
        clean.StudyInstanceUID, clean.SeriesInstanceUID = series.study_uid, series.uid
        clean.FrameOfReferenceUID = reference
        clean.Modality, clean.Rows, clean.Columns = series.modality, header.rows, header.columns
        if multi_frame:
            _add_groups(clean, read_frames(header.file), thickness)
        else:
            clean.update(_place(frame))
            clean.update(_plane(frame, thickness))
        return clean


def _place(frame: Frame) -> Dataset:
    from pydicom.dataset import Dataset

    place = Dataset()
    place.ImagePositionPatient = list(frame.position or ())
    return place


def _plane(frame: Frame, thickness: float) -> Dataset:
    from pydicom.dataset import Dataset

    plane = Dataset()
    plane.ImageOrientationPatient = list(frame.orientation or ())
    plane.PixelSpacing = list(frame.spacing or ())
    plane.SliceThickness = thickness
    return plane


def _add_groups(clean: Dataset, frames: Sequence[Frame], thickness: float) -> None:
    """Functional groups that say where each frame of the file lies, whatever else its own groups hold."""
    from pydicom.dataset import Dataset

    plane = _plane(frames[0], thickness)
    shared, orientation, measures = Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = plane.ImageOrientationPatient
    measures.PixelSpacing, measures.SliceThickness = plane.PixelSpacing, plane.SliceThickness
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    each = [Dataset() for _ in frames]
    for group, frame in zip(each, frames, strict=True):
        group.PlanePositionSequence = [_place(frame)]
    clean.NumberOfFrames = len(frames)
    clean.SharedFunctionalGroupsSequence = [shared]
    clean.PerFrameFunctionalGroupsSequence = each


def _valid(source: Dataset, keyword: str) -> Any:
    """A value that keeps its format, names as plain text; None where it is absent, blank or breaks the format."""
    from pydicom.config import RAISE
    from pydicom.valuerep import PersonName, validate_value

    if keyword not in source:
        return None
    element = source[keyword]
    value = str(element.value) if isinstance(element.value, PersonName | str) else element.value
    if value in ("", None) or (keyword == "PatientSex" and value not in _SEXES):
        return None
    try:
        validate_value(element.VR, value, RAISE)
    except damage():
        return None
    return value
