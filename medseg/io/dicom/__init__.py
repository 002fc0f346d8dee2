"""DICOM in and out: the only room where LPS, frames and slices exist; what leaves it is a Volume in RAS mm."""

from medseg.io.dicom.reader import read_dicom, read_series
from medseg.io.dicom.rule import SeriesRule
from medseg.io.dicom.scanning import Refusal, Scan, scan, scan_series
from medseg.io.dicom.seg import write_dicom_seg
from medseg.io.dicom.selection import select_series
from medseg.io.dicom.series import Series
from medseg.io.dicom.synthetic import SeriesDescription, write_series

__all__ = [
    "Refusal",
    "Scan",
    "Series",
    "SeriesDescription",
    "SeriesRule",
    "read_dicom",
    "read_series",
    "scan",
    "scan_series",
    "select_series",
    "write_dicom_seg",
    "write_series",
]
