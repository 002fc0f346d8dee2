"""Stored pixels of a frame as real values: decoded by a stated codec, rescaled with the frame's own slope."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medseg.errors import DicomError
from medseg.io.dicom.headers import Frame
from medseg.io.dicom.tolerance import damage, quiet

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

# Transfer syntax -> codecs in the order of preference, so that a result does not hang on what else is installed.
# "pylibjpeg" is OpenJPEG; GDCM decodes the same J2K where that is absent, and alone JPEG, lossless and lossy.
_GDCM, _JPEG_LS, _JPEG_2000 = ("gdcm",), ("pyjpegls", "gdcm"), ("pylibjpeg", "gdcm")
_CODECS: dict[str, tuple[str, ...]] = {
    "1.2.840.10008.1.2.4.50": _GDCM,  # JPEG baseline, 8 bit
    "1.2.840.10008.1.2.4.51": _GDCM,  # JPEG extended, 12 bit
    "1.2.840.10008.1.2.4.57": _GDCM,  # JPEG lossless
    "1.2.840.10008.1.2.4.70": _GDCM,  # JPEG lossless, first order
    "1.2.840.10008.1.2.4.80": _JPEG_LS,
    "1.2.840.10008.1.2.4.81": _JPEG_LS,  # near lossless
    "1.2.840.10008.1.2.4.90": _JPEG_2000,  # lossless
    "1.2.840.10008.1.2.4.91": _JPEG_2000,
    "1.2.840.10008.1.2.4.201": ("pylibjpeg",),  # high-throughput JPEG 2000
    "1.2.840.10008.1.2.4.202": ("pylibjpeg",),
    "1.2.840.10008.1.2.4.203": ("pylibjpeg",),
    "1.2.840.10008.1.2.5": ("pydicom",),  # run length
}


class PixelReader:
    """Reads frames of a series; keeps the file of the last one, since frames of a multi-frame file come together."""

    def __init__(self) -> None:
        self._file: Path | None = None
        self._dataset: Dataset | None = None

    def values(self, frame: Frame) -> np.ndarray:
        """A frame's values, float32 `(C, X, Y)`; a voxel of padding is NaN.

        value = stored * slope + intercept in float64, with the slope of this very frame: PS3.3 C.11.1. Raises
        DicomError naming the file for pixels that cannot be decoded, that do not fill the frame or are not finite.
        """
        stored = self._stored(frame)
        values = stored.astype(np.float64) * frame.slope + frame.intercept
        if not np.isfinite(values).all():
            raise DicomError(f"{frame.header.file}: frame {frame.index + 1} holds voxels that are not finite")
        if frame.header.padding is not None:
            first, last = frame.header.padding
            values[(stored >= first) & (stored <= last)] = np.nan
        return np.ascontiguousarray(values.astype(np.float32).transpose(2, 1, 0))

    def _stored(self, frame: Frame) -> np.ndarray:
        """Stored values `(rows, columns, samples)`; colour as RGB."""
        from pydicom.pixels import get_decoder

        header = frame.header
        with quiet():
            try:
                dataset = self._open(header.file)
                decoder = get_decoder(dataset.file_meta.TransferSyntaxUID)
                codecs = _CODECS.get(header.transfer_syntax, ("",))
                codec = next((one for one in codecs if one in decoder.available_plugins), codecs[0])
                stored, _ = decoder.as_array(dataset, index=frame.index, decoding_plugin=codec)
            except damage() as error:
                raise DicomError(
                    f"{header.file}: the pixels of frame {frame.index + 1} cannot be decoded "
                    f"(transfer syntax {header.transfer_syntax}, {type(error).__name__}); send the file again"
                ) from error
        expected = (header.rows, header.columns, header.samples)
        if stored.size != np.prod(expected):
            raise DicomError(f"{header.file}: decodes to {stored.shape}, but its header says {expected}")
        return stored.reshape(expected)

    def _open(self, file: Path) -> Dataset:
        from pydicom import dcmread

        if self._dataset is None or self._file != file:
            self._dataset, self._file = dcmread(file), file
        return self._dataset


def fill_padding(slices: np.ndarray) -> int:
    """Sets voxels of padding (NaN) to the smallest value that is none, in place; how many there were.

    The smallest value of a CT or MR is air or no signal, which is what padding stands for outside the scanned field;
    the padding's own number would be a false minimum for whoever normalises.
    """
    counts = [int(np.isnan(one).sum()) for one in slices]
    if not any(counts):
        return 0
    lowest = min((float(np.nanmin(one)) for one in slices if not np.isnan(one).all()), default=0.0)
    for one, count in zip(slices, counts, strict=True):
        if count:
            one[np.isnan(one)] = lowest
    return sum(counts)


def same_values(several: Sequence[np.ndarray]) -> bool:
    return all(np.array_equal(several[0], other, equal_nan=True) for other in several[1:])
