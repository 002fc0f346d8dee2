"""Every odd, broken or hostile file of other projects' tests: read as the reference reads it, or refused clearly."""

from __future__ import annotations

import resource
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import SimpleITK

from medseg.errors import MedsegError
from medseg.io import read_image
from medseg.volume import Volume

REFUSED = {  # what each must be refused for, by a word of the message
    "itksnap/MRIcrop-seg.gipl.gz": "format",
    "itksnap/nan_converted.nii.gz": "1592 of",
    "nibabel/minc2_baddim.mnc": "format",
    "nibabel/row_major.dconn.nii": "CIFTI",
    "nifti-jl/empty.nii.gz": "empty",
    "nifti-reader-js/air2.hdr.gz": "air2.img.gz is missing",
    "nifti-reader-js/not-nifti.nii": "does not start",
    "nifti-rs/complex/complex32.nii": "complex",
    "nifti-rs/rgb/4D.nii": "colour volumes",
    "panimg/image3x4-no-spacing.mhd": "missing",
    "panimg/image4x4x4x4x4.mha": "axes",
    "panimg/nrrd/image10x11x12_unsupported_version.nrrd": "NRRD1004",
    "panimg/referring_to_system_file.mhd": "outside its own folder",
}
READ = {"nifti-reader-js/5D_small.nii": (3, 1, 2, 3), "nifti-rs/minimal2.hdr": (1, 64, 64, 10)}
LONGEST_S = 10.0
MOST_GROWTH_KB = 500_000  # the largest file holds 33 million voxels


def load(path: Path) -> Any:
    return nibabel.load(path)


def reference(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The values as `(C, X, Y[, Z])` and the world position of the last voxel, read by nibabel or SimpleITK."""
    if path.suffix in (".mha", ".mhd", ".nrrd", ".nhdr"):
        image = SimpleITK.ReadImage(str(path))
        array = SimpleITK.GetArrayFromImage(image)
        dims = min(image.GetDimension(), 3)
        spatial = image.GetSize()[:dims]
        channels = np.moveaxis(array, -1, 0) if image.GetNumberOfComponentsPerPixel() > 1 else array
        channels = channels.reshape(-1, *spatial[::-1])
        last = [size - 1 for size in image.GetSize()]
        world = np.array(image.TransformIndexToPhysicalPoint(last))[:dims] * [-1, -1, 1][:dims]
        return channels.transpose(0, *range(dims, 0, -1)), world
    loaded = load(path)
    values = np.asanyarray(loaded.dataobj)
    if values.dtype.names is not None:
        values = np.stack([values[name] for name in values.dtype.names], axis=-1)
    spatial = loaded.shape[:3]
    last = [*(size - 1 for size in spatial), *[0] * (3 - len(spatial)), 1]
    return np.moveaxis(values.reshape(*spatial, -1, order="F"), -1, 0), (loaded.affine @ last)[: len(spatial)]


def files(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".md")
    assert len(found) > 40
    return found


def outcome(path: Path) -> Volume | str:
    """What was read, or the message that refused it; nothing else may be raised."""
    try:
        return read_image(path)
    except MedsegError as error:
        return str(error)


@pytest.mark.real
def test_every_file_is_read_or_refused_in_two_lines_time_and_memory(real_data: Path) -> None:
    folder = real_data / "bad_input_nifti"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for path in files(folder):
        name, start = str(path.relative_to(folder)), time.monotonic()
        result = outcome(path)
        assert time.monotonic() - start < LONGEST_S, name
        if isinstance(result, str):
            assert path.name in result, name
            assert result.count("\n") < 2, name
            assert name not in READ, result
            assert REFUSED.get(name, "") in result, name
        else:
            assert name not in REFUSED, name
            assert result.array.shape == READ.get(name, result.array.shape), name
            assert np.isfinite(result.array).all(), name
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_GROWTH_KB


@pytest.mark.real
@pytest.mark.slow
def test_every_file_that_is_read_agrees_with_the_reference(real_data: Path) -> None:
    folder = real_data / "bad_input_nifti"
    for path in files(folder):
        volume = outcome(path)
        if isinstance(volume, Volume):
            twin = path.with_name("minimal.hdr") if path.name.startswith("minimal2.") else path  # mixed compression
            values, last = reference(twin)
            np.testing.assert_allclose(volume.array, values, rtol=1e-5, err_msg=str(path))
            world = volume.geometry.world(np.array([volume.geometry.shape]) - 1)[0]
            np.testing.assert_allclose(world, last, atol=1e-3, err_msg=str(path))
