"""A segmentation as a DICOM SEG that any archive and viewer can lay over its source images."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medseg import __version__
from medseg.errors import DicomError, GeometryError
from medseg.io.atomic import atomic_write_bytes
from medseg.io.dicom.geometry import Stack, stack_series
from medseg.io.dicom.seg_source import source_datasets
from medseg.io.dicom.series import Series
from medseg.io.dicom.tolerance import damage, quiet
from medseg.io.dicom.uids import derive_uid
from medseg.io.dicom.wording import shown_text
from medseg.labels import CodedTerm, Label
from medseg.volume import Segmentation, digest

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom.dataset import Dataset

_SERIES_NUMBERS_FROM = 1000  # above a scanner's own, so that results come last in a viewer's list
_LONGEST = 64  # characters of an LO


def write_dicom_seg(segmentation: Segmentation, series: Series, path: Path) -> Path:
    """Writes a BINARY SEG, explicit VR little endian, that refers to the series' images; whole or not at all.

    Segments are numbered from 1 in the order of the LabelSet; voxels to ignore are background. SOP and series UID
    follow from source, model and content. Where no voxel is found the object holds one empty frame a segment, and says
    so. Raises GeometryError where the grids differ, DicomError where the source cannot be referred to.
    """
    stack = stack_series(series)
    if not segmentation.geometry.matches(stack.geometry):
        raise GeometryError(
            f"{segmentation.provenance.source}: lies on {segmentation.geometry.describe()}, but {series.name} on "
            f"{stack.geometry.describe()}; resample it to the grid of the series first"
        )
    segmentation.labels.check(segmentation.array, segmentation.provenance.source)
    sources = source_datasets(series, stack)
    encoded = BytesIO()
    with quiet():
        try:
            _segmentation(segmentation, series, stack, sources).save_as(encoded, enforce_file_format=True)
        except damage() as error:  # its text may quote a value of the patient's, so only its kind is told
            raise DicomError(f"{series.name}: no SEG can be made for it ({type(error).__name__})") from error
    return atomic_write_bytes(path, encoded.getvalue())


def _segmentation(segmentation: Segmentation, series: Series, stack: Stack, sources: list[Dataset]) -> Dataset:
    import highdicom
    from pydicom.uid import ExplicitVRLittleEndian

    name, version = _model(segmentation)
    pixels = _frames(segmentation)
    places = stack.places if pixels.any() else stack.places[len(stack.places) // 2 :][:1]
    found = shown_text(", ".join(segmentation.labels.names)) if pixels.any() else "nothing found"
    identity = (series.study_uid, series.uid, name, version, _content(segmentation))
    positions = [highdicom.PlanePositionSequence("PATIENT", list(place[0].position or ())) for place in places]
    made = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=pixels if pixels.any() else pixels[:1],
        segmentation_type="BINARY",
        segment_descriptions=[
            _description(i, label, segmentation, name, version) for i, label in _numbered(segmentation)
        ],
        series_instance_uid=derive_uid("seg series", *identity),
        series_number=_SERIES_NUMBERS_FROM + int(sources[0].get("SeriesNumber") or 0),
        sop_instance_uid=derive_uid("seg", *identity),
        instance_number=1,
        manufacturer="medseg",
        manufacturer_model_name=_cut(name),
        software_versions=_cut(f"medseg {__version__}, model {version}"),
        device_serial_number=derive_uid("model", name, version)[-16:],
        transfer_syntax_uid=ExplicitVRLittleEndian,
        pixel_measures=_measures(stack),
        plane_orientation=highdicom.PlaneOrientationSequence("PATIENT", list(stack.frames[0].orientation or ())),
        plane_positions=positions,
        content_label="SEGMENTATION",
        content_description=_cut(f"For research use: {found}"),
        content_creator_name="medseg",
        series_description=_cut(f"medseg: {name}", ", for research use"),
        specific_character_set="ISO_IR 192",
    )
    return made


def _model(segmentation: Segmentation) -> tuple[str, str]:
    """Name and version out of `made_by`, "name version ...": the first word, and the rest."""
    words = (segmentation.provenance.made_by or "").split()
    return (shown_text(words[0]) if words else "medseg"), (shown_text(" ".join(words[1:])) or __version__)


def _content(segmentation: Segmentation) -> str:
    return digest(segmentation.array, segmentation.geometry) + segmentation.labels.model_dump_json()


def _cut(text: str, end: str = "") -> str:
    """Text and end within the 64 characters of an LO."""
    return shown_text(text)[: _LONGEST - len(end)] + end


def _frames(segmentation: Segmentation) -> np.ndarray:
    """Segment numbers `(Z, rows, columns)`, or bool `(Z, rows, columns, S)` where segments may overlap."""
    labels, array = segmentation.labels, segmentation.array
    if not labels.is_exclusive:
        return array.astype(bool).transpose(3, 2, 1, 0)
    values = [label.value for label in labels.labels]
    numbers = np.zeros(max(values) + 1, dtype=np.uint8 if len(values) < 256 else np.uint16)
    numbers[values] = np.arange(1, len(values) + 1)
    known = (array >= 0) & (array <= max(values))  # the rest is the value to ignore
    return numbers[np.where(known, array, 0).astype(np.intp)].transpose(2, 1, 0)


def _numbered(segmentation: Segmentation) -> list[tuple[int, Label]]:
    return list(enumerate(segmentation.labels.labels, start=1))


def _description(number: int, label: Label, segmentation: Segmentation, name: str, version: str) -> SegmentDescription:
    import highdicom
    from highdicom.color import CIELabColor
    from pydicom.sr.codedict import codes

    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=_cut(label.name),
        segmented_property_category=_code(label.category),
        segmented_property_type=_code(label.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=_cut(name), family=codes.DCM.ArtificialIntelligence, version=_cut(version)
        ),
        display_color=CIELabColor.from_rgb(*segmentation.labels.colour(label.name)),
    )


def _code(term: CodedTerm) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(value=term.value, scheme_designator=term.scheme, meaning=_cut(term.meaning))


def _measures(stack: Stack) -> Any:
    """Pixel spacing as the source says it, the distance of slices as their positions say it."""
    import highdicom

    frame, distance = stack.frames[0], float(stack.geometry.spacing[2])
    return highdicom.PixelMeasuresSequence(
        pixel_spacing=list(frame.spacing or ()),
        slice_thickness=frame.thickness or distance,
        spacing_between_slices=distance,
    )
