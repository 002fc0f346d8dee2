"""The DICOM room on real files: clean ones against other readers, bad ones against its promise of one clear error."""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from numpy.testing import assert_allclose, assert_array_equal

from medseg.errors import DicomError, MedsegError
from medseg.io.dicom import (
    SeriesRule,
    read_dicom,
    read_series,
    scan,
    scan_series,
    select_series,
    write_dicom_seg,
)
from medseg.labels import Label, LabelSet
from medseg.volume import Provenance, Segmentation
from tests_io_dcmqi import placeholder  # type: ignore[import-not-found]
