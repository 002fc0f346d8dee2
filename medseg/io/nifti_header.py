"""Understands a NIfTI header through nibabel, and refuses what is no image of real numbers on a grid."""

from __future__ import annotations

import gzip
import logging
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from medseg.io.formats import GZIP_MAGIC, cannot_open, one_line, refusal

if TYPE_CHECKING:
    import nibabel

FETCH_AGAIN = "it is truncated or damaged: fetch the file again"
_CIFTI_INTENTS = range(3000, 3100)  # NIfTI-2 intent codes of CIFTI-2: no voxel grid

_QUIET = logging.getLogger("medseg.io.nifti.header")
_QUIET.addHandler(logging.NullHandler())
_QUIET.propagate = False


@dataclass(frozen=True)
class NiftiHeader:
    """What the bytes before the voxels say."""

    nifti: nibabel.Nifti1Header
    has_spacing: bool  # as stored; nibabel puts 1 where it is 0
    notes: tuple[str, ...]
    files: tuple[Path, ...]  # header and data, once where they are one file

    @property
    def path(self) -> Path:
        return self.files[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """The axes, singletons beyond the third left out."""
        shape = tuple(int(size) for size in self.nifti.get_data_shape())
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.nifti.get_data_dtype())


def files_of(path: Path) -> tuple[Path, Path]:
    """The files that hold header and voxels: one file twice, or a .hdr and .img pair, gzipped or not."""
    name = path.name
    bare = name[:-3] if name.lower().endswith(".gz") else name
    stem, extension = bare[:-4], bare[-4:]
    if extension.lower() not in (".hdr", ".img"):
        return path, path
    is_header = extension.lower() == ".hdr"
    wanted = "img" if is_header else "hdr"
    wanted = wanted.upper() if extension.isupper() else wanted
    if not path.is_file():
        raise refusal(path, "no such file", "check the path")
    ends = [name[len(bare) :], "", ".gz"]  # compressed like this half, or not
    candidates = [path.with_name(f"{stem}.{wanted}{end}") for end in ends]
    partner = next((candidate for candidate in candidates if candidate.is_file()), None)
    if partner is None:
        raise refusal(path, f"its other half {candidates[0].name} is missing", "put both files into one folder")
    return (path, partner) if is_header else (partner, path)


def read_header(path: Path, data_path: Path) -> NiftiHeader:
    """The header in `path` of the voxels in `data_path`. Raises ReadError where it is damaged."""
    import nibabel
    from nibabel.spatialimages import HeaderDataError

    try:
        with open_bytes(path) as stream:
            raw = stream.read(540)
    except (OSError, EOFError, zlib.error) as error:
        raise cannot_open(path, error) from error
    version, endianness = _version(raw, path)
    kinds: dict[tuple[int, bool], Any] = {
        (1, True): nibabel.Nifti1Header,
        (1, False): nibabel.nifti1.Nifti1PairHeader,
        (2, True): nibabel.Nifti2Header,
        (2, False): nibabel.nifti2.Nifti2PairHeader,
    }
    kind = kinds[version, path == data_path]
    block = raw[: 348 if version == 1 else 540]
    try:
        header = kind(block, endianness, check=False)
        stored_spacing = np.array(header["pixdim"][1 : 1 + min(3, max(2, int(header["dim"][0])))])
        problems = kind.diagnose_binaryblock(block, endianness)
        header.check_fix(logger=_QUIET, error_level=40)
    except (HeaderDataError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise refusal(
            path, f"its NIfTI header is damaged: {one_line(error)}", "fetch or convert the file again"
        ) from error
    notes = tuple(f"header: {problem}" for problem in problems.splitlines())
    has_spacing = bool(np.isfinite(stored_spacing).all() and (stored_spacing != 0).all())
    return NiftiHeader(header, has_spacing, notes, (path,) if path == data_path else (path, data_path))


def _version(raw: bytes, path: Path) -> tuple[int, str]:
    """NIfTI-1 or 2, and the byte order as nibabel writes it."""
    if not raw:
        raise refusal(path, "is empty", "fetch the file again")
    layouts = {348: (1, 344), 540: (2, 4)}  # length of the header -> version, where the magic starts
    for order, endianness in (("little", "<"), ("big", ">")):
        size = int.from_bytes(raw[:4], order)  # type: ignore[arg-type]
        if size not in layouts:
            continue
        version, start = layouts[size]
        if len(raw) < size:
            raise refusal(path, f"ends within its header ({len(raw)} bytes)", FETCH_AGAIN)
        magic = raw[start : start + 4]
        if magic in (b"n+1\0", b"ni1\0", b"n+2\0", b"ni2\0"):
            return version, endianness
        if version == 1 and not magic.strip(b"\0"):
            raise refusal(path, "is Analyze 7.5, which does not say where left and right are", "convert it to NIfTI")
        raise refusal(path, f"has the magic {magic!r}, not NIfTI's", "give a NIfTI file, or convert it")
    raise refusal(path, "does not start with a NIfTI header", "give a NIfTI file, or convert it")


def require_readable(header: NiftiHeader) -> None:
    """Raises ReadError for a kind of content that is no image of real numbers on a grid."""
    path, shape, dtype = header.path, header.shape, header.dtype
    dims = int(header.nifti["dim"][0])
    if int(header.nifti["intent_code"]) in _CIFTI_INTENTS:
        raise refusal(path, "holds CIFTI data, which has no grid of voxels", "give a volume")
    if len(header.files) == 1 and bytes(header.nifti["magic"])[:2] == b"ni":
        raise refusal(path, "is the header of a pair, without voxels", "give the .hdr of a .hdr and .img pair")
    if not 2 <= dims <= 7 or any(size < 1 for size in shape):
        raise refusal(
            path, f"claims {dims} axes of {shape} voxels", "a volume needs two or three axes of at least one voxel"
        )
    if dtype.kind == "c":
        raise refusal(path, f"holds complex numbers ({dtype.name})", "store magnitude or phase as real numbers")
    if dtype.names is None and (dtype.kind not in "iuf" or dtype.itemsize > 8):
        raise refusal(path, f"holds {dtype.name}, which has no use as an image", "convert it to float32")
    if len(shape) > 5 or (len(shape) == 5 and shape[3] != 1):
        raise refusal(path, f"has the shape {shape}: time and channels at once", "store one time point a file")
    if len(shape) > 3 and dtype.names is not None:
        raise refusal(path, f"holds {shape[3]} colour volumes", "store one a file")


def open_bytes(path: Path) -> IO[bytes]:
    """The file's bytes, gzip undone where its first bytes say so, whatever its name."""
    stream = path.open("rb")
    is_gzip = stream.read(2) == GZIP_MAGIC
    stream.seek(0)
    if not is_gzip:
        return stream
    stream.close()
    return gzip.open(path)  # type: ignore[return-value]
