"""What one DICOM file says about its frames, read without its pixels and with bounded effort."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from medseg.errors import DicomError
from medseg.io.dicom.tolerance import damage, quiet
from medseg.io.dicom.values import BadValue, Values
from medseg.io.dicom.wording import is_uid, shown_code

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

DICOMDIR_CLASS = "1.2.840.10008.1.3.10"
_DEFLATED = "1.2.840.10008.1.2.1.99"
_PIXEL_TAGS = {0x7FE00008: 32, 0x7FE00009: 64, 0x7FE00010: 0}  # float, double, integer pixel data: bits, 0 = as said
_NO_IMAGES = frozenset(
    ("SEG", "RTDOSE", "RTSTRUCT", "RTPLAN", "SR", "PR", "KO", "REG", "FID", "RWV", "SM", "ECG", "M3D")
)
_LARGEST_FRAME = 2**28  # samples; 16384 x 16384, far above any slice, so a bent header cannot ask for all memory
_FIRST_ELEMENT = 2048  # bytes that hold a file's first element, whatever its value
_LAST_FIRST = 0x0018  # no file begins later in its group: SOPInstanceUID is mandatory
_FIRST_VRS = (b"UL", b"OB", b"UI", b"SH", b"AE", b"LO", b"CS", b"SQ", b"DA", b"TM")
_TAIL = 65536  # bytes at a file's end in which the end of encapsulated pixel data is looked for
_DELIMITER = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"

# Functional group macros that hold what a frame needs: PS3.3 C.7.6.16.
_MACROS = (
    "FrameContentSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "MREchoSequence",
    "MRDiffusionSequence",
    "MRImageFrameTypeSequence",
    "CTImageFrameTypeSequence",
    "PETFrameTypeSequence",
)
# What may set several images of one position apart: words for a message, then the attributes that say it.
_PHASES = (
    ("echo", ("EchoNumbers",)),
    ("phase", ("TemporalPositionIdentifier", "TemporalPositionIndex")),
    ("acquisition", ("AcquisitionNumber", "FrameAcquisitionNumber")),
    ("b-value", ("DiffusionBValue",)),
    ("trigger time", ("TriggerTime",)),
    ("inversion time", ("InversionTime", "InversionTimes")),
    ("flip angle", ("FlipAngle",)),
)
_KEYWORDS = """SpecificCharacterSet ImageType SOPClassUID SOPInstanceUID Modality SeriesDescription StudyInstanceUID
SeriesInstanceUID FrameOfReferenceUID InstanceNumber ImagePositionPatient ImageOrientationPatient PixelSpacing
SliceThickness Rows Columns SamplesPerPixel PhotometricInterpretation NumberOfFrames BitsAllocated PixelRepresentation
PixelPaddingValue PixelPaddingRangeLimit RescaleSlope RescaleIntercept ModalityLUTSequence EchoTime EchoNumbers
TemporalPositionIdentifier TemporalPositionIndex AcquisitionNumber DiffusionBValue TriggerTime InversionTime FlipAngle
SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence"""
_PHILIPS_SCALE = 0x2005100E


@dataclass(frozen=True)
class Header:
    """What holds for a whole file. `problem` says why it cannot be read as an image."""

    file: Path
    sop_class: str = ""
    sop_uid: str = ""
    study_uid: str = ""
    series_uid: str = ""
    modality: str = ""
    description: str = ""
    transfer_syntax: str = ""
    frame_of_reference: str = ""
    rows: int = 0
    columns: int = 0
    samples: int = 1
    photometric: str = ""
    padding: tuple[int, int] | None = None  # stored values, both ends included, that are no measurement
    problem: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Frame:
    """One slice: a classic file, or one frame of a multi-frame file. Positions and cosines are LPS, in mm."""

    header: Header
    index: int = 0  # which frame of its file
    is_in_groups: bool = False  # described by functional groups: one of a multi-frame file
    number: int | None = None  # InstanceNumber, for messages alone: it orders nothing
    position: tuple[float, ...] | None = None  # centre of the first voxel
    orientation: tuple[float, ...] | None = None  # cosines along a row, then along a column
    spacing: tuple[float, ...] | None = None  # between rows, then between columns: PS3.3 10.7.1.3
    thickness: float | None = None
    slope: float = 1.0
    intercept: float = 0.0
    echo_time: float | None = None  # ms
    stack: str = ""
    image_type: tuple[str, ...] = ()
    phases: tuple[tuple[str, float], ...] = ()

    @property
    def is_localizer(self) -> bool:
        return "LOCALIZER" in self.image_type


def has_dicom_header(path: Path) -> bool:
    """Whether a file carries the DICM mark of PS3.10 7.1. Raises DicomError where it cannot be opened."""
    return _start(path, 132)[128:] == b"DICM"


def is_bare_dicom(path: Path) -> bool:
    """Whether a file without that mark begins with DICOM elements all the same: its preamble was left out or lost."""
    start = _start(path, _FIRST_ELEMENT)
    return any(_begins_with_elements(start, order) for order in "<>")


def _start(path: Path, count: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(count)
    except OSError as error:
        raise DicomError(f"{path}: cannot be read ({error.strerror})") from error


def _begins_with_elements(start: bytes, order: str) -> bool:
    """A first tag of group 2 or 8, then a value representation, or an even length that leads to a later tag."""
    if len(start) < 8:
        return False
    tag = struct.unpack(f"{order}HH", start[:4])
    if tag[0] not in (0x0002, 0x0008) or tag[1] > _LAST_FIRST:
        return False
    if start[4:6] in _FIRST_VRS:
        return True
    end = 8 + struct.unpack(f"{order}I", start[4:8])[0]
    following = struct.unpack(f"{order}HH", start[end : end + 4]) if end % 2 == 0 and end + 4 <= len(start) else (0, 0)
    return tag < following and following[0] in (0x0002, 0x0008, 0x0010)


def read_frames(path: Path) -> tuple[Frame, ...]:
    """The frames of one file, pixels left where they are; one frame without place for an object that is no image.

    A file whose series is known but whose header is bent or whose pixels are cut short comes back with
    `header.problem`, so that its series knows that it is not whole. Raises DicomError where nothing can be read.
    """
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_partial

    pixels: list[tuple[int, str | None, int]] = []

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        if int(tag) in _PIXEL_TAGS:
            pixels.append((int(tag), vr, length))
        return bool(pixels)

    with quiet():
        try:
            with path.open("rb") as file:
                dataset = read_partial(file, at_pixels, specific_tags=[*_tags(), _PHILIPS_SCALE])
                return _frames(path, dataset, _Pixels.found(file, pixels))
        except InvalidDicomError as error:
            raise DicomError(f"{path}: is not a DICOM file") from error
        except damage() as error:
            raise DicomError(f"{path}: is damaged, its header cannot be read ({type(error).__name__})") from error


def _tags() -> list[int]:
    from pydicom.datadict import tag_for_keyword

    return [tag for tag in map(tag_for_keyword, _KEYWORDS.split()) if tag is not None]


@dataclass(frozen=True)
class _Pixels:
    """Where a file's pixel data lies: what its length says, and what the file holds of it."""

    bits: int  # 0 where BitsAllocated says it
    length: int | None  # None for encapsulated data
    present: int
    has_end: bool

    @classmethod
    def found(cls, file: BinaryIO, seen: list[tuple[int, str | None, int]]) -> _Pixels | None:
        if not seen:
            return None
        tag, vr, length = seen[0]
        start = file.tell() + (8 if vr is None else 12)
        end = file.seek(0, 2)
        file.seek(max(start, end - _TAIL))
        encapsulated = length == 0xFFFFFFFF
        has_end = not encapsulated or _DELIMITER in file.read()
        return cls(_PIXEL_TAGS[tag], None if encapsulated else length, max(end - start, 0), has_end)


def _frames(path: Path, dataset: Dataset, pixels: _Pixels | None) -> tuple[Frame, ...]:
    root = Values([dataset])
    header = _identity(path, dataset, root)
    if pixels is None and not header.series_uid and header.sop_class != DICOMDIR_CLASS:
        raise DicomError(f"{path}: ends before it says which series it belongs to; fetch the file again")
    try:
        header = _image(header, root, pixels)
        if pixels is not None and header.problem is None:
            header = replace(header, problem=_problem(header, root, pixels))
        return tuple(_each_frame(header, dataset, root))
    except BadValue as error:
        return (Frame(replace(header, problem=str(error))),)


def _identity(path: Path, dataset: Dataset, root: Values) -> Header:
    """Who the file says it is; never fails, so that a bent file is still known to belong to its series."""
    return Header(
        file=path,
        sop_class=root.text("SOPClassUID") or str(dataset.file_meta.get("MediaStorageSOPClassUID", "")),
        sop_uid=root.text("SOPInstanceUID"),
        study_uid=root.text("StudyInstanceUID"),
        series_uid=root.text("SeriesInstanceUID"),
        modality=root.text("Modality"),
        description=root.text("SeriesDescription"),
        transfer_syntax=str(dataset.file_meta.get("TransferSyntaxUID", "")),
        frame_of_reference=root.text("FrameOfReferenceUID"),
    )


def _image(header: Header, root: Values, pixels: _Pixels | None) -> Header:
    if header.modality in _NO_IMAGES:
        return replace(header, problem=f"is no image (modality {shown_code(header.modality)}); give a series of images")
    if pixels is None:
        return replace(header, problem="holds no pixel data; fetch the file again, or give a series of images")
    philips = root.has(_PHILIPS_SCALE)
    notes = ("scaled by RescaleSlope; Philips' own scale slope is there and was not used",) if philips else ()
    return replace(
        header,
        rows=root.integer("Rows"),
        columns=root.integer("Columns"),
        samples=root.integer("SamplesPerPixel", 1),
        photometric=root.text("PhotometricInterpretation"),
        padding=_padding(root),
        notes=notes,
    )


def _padding(root: Values) -> tuple[int, int] | None:
    """Stored values from PixelPaddingValue to PixelPaddingRangeLimit, in the signedness of the pixels: C.7.5.1.1.2."""
    if root.numbers("PixelPaddingValue") is None:
        return None
    bits, signed = root.integer("BitsAllocated", 16), root.integer("PixelRepresentation", 0) == 1
    first = root.integer("PixelPaddingValue")
    ends = [value % (1 << bits) for value in (first, root.integer("PixelPaddingRangeLimit", first))]
    folded = [value - (1 << bits) if signed and value >= 1 << (bits - 1) else value for value in ends]
    return min(folded), max(folded)


def _problem(header: Header, root: Values, pixels: _Pixels) -> str | None:
    """Why the pixels cannot be read, told from the header alone."""
    frames = root.integer("NumberOfFrames", 1)
    samples = header.rows * header.columns * header.samples
    if not (0 < samples <= _LARGEST_FRAME) or frames < 1:
        return f"claims {frames} frames of {header.rows} x {header.columns} x {header.samples} samples"
    if not is_uid(header.transfer_syntax):
        return "names no transfer syntax, so its pixels cannot be decoded"
    if root.has("ModalityLUTSequence"):
        return "maps its values by a Modality LUT, which is not supported; export it with RescaleSlope instead"
    if header.photometric == "PALETTE COLOR":
        return "stores colours through a palette, which is not supported; export it as RGB"
    if header.transfer_syntax == _DEFLATED:
        return None
    if pixels.length is None:
        return None if pixels.has_end else "is cut short: its compressed pixel data does not end; fetch the file again"
    bits = pixels.bits or root.integer("BitsAllocated")
    needed = (samples * frames * bits + 7) // 8
    if header.photometric == "YBR_FULL_422":  # two pixels share their colour: PS3.3 C.7.6.3.1.2
        needed = needed * 2 // 3
    if min(pixels.length, pixels.present) < needed:
        return f"is cut short: {min(pixels.length, pixels.present)} of {needed} bytes of pixel data; fetch it again"
    return None


def _each_frame(header: Header, dataset: Dataset, root: Values) -> Iterator[Frame]:
    """A classic file's one frame, or each frame of a multi-frame file through its functional groups."""
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    if header.problem or not groups:
        frames = 1 if header.problem else root.integer("NumberOfFrames", 1)
        if frames > 1:
            yield Frame(replace(header, problem=f"holds {frames} frames without a position for each"))
        else:
            yield _frame(header, 0, root)
        return
    if len(groups) != root.integer("NumberOfFrames"):
        raise BadValue(f"NumberOfFrames is {root.integer('NumberOfFrames')}, but {len(groups)} frames are described")
    shared = list(_macros(dataset.get("SharedFunctionalGroupsSequence") or []))
    for index, group in enumerate(groups):
        yield replace(_frame(header, index, Values([*_macros([group]), *shared, dataset])), is_in_groups=True)


def _macros(groups: Iterable[Dataset]) -> Iterator[Dataset]:
    for group in groups:
        for macro in _MACROS:
            if group.get(macro):
                yield group[macro].value[0]


def _frame(header: Header, index: int, values: Values) -> Frame:
    slope, intercept = values.number("RescaleSlope"), values.number("RescaleIntercept")
    if slope == 0.0:
        raise BadValue("RescaleSlope is 0, so all voxels would be equal")
    number = values.hint("InstanceNumber")
    found = ((name, values.hint(*keywords)) for name, keywords in _PHASES)
    return Frame(
        header=header,
        index=index,
        number=None if number is None else int(number),
        position=values.numbers("ImagePositionPatient", 3),
        orientation=values.numbers("ImageOrientationPatient", 6),
        spacing=values.numbers("PixelSpacing", 2),
        thickness=values.number("SliceThickness"),
        slope=1.0 if slope is None else slope,
        intercept=0.0 if intercept is None else intercept,
        echo_time=values.hint("EffectiveEchoTime", "EchoTime"),
        stack=values.text("StackID"),
        image_type=values.texts("FrameType", "ImageType"),
        phases=tuple((name, value) for name, value in found if value is not None),
    )
