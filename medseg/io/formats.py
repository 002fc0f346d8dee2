"""The file formats that can be read, in one table, so that adding or finding one takes a glance."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path, PurePath

from medseg.errors import ReadError

# Extension -> format. Extensions of two parts come before their second part.
EXTENSIONS = {
    ".nii.gz": "nifti",
    ".hdr.gz": "nifti",
    ".img.gz": "nifti",
    ".nii": "nifti",
    ".hdr": "nifti",
    ".img": "nifti",
    ".nrrd": "nrrd",
    ".nhdr": "nrrd",
    ".mha": "metaimage",
    ".mhd": "metaimage",
    ".png": "picture",
    ".tif": "picture",
    ".tiff": "picture",
    ".jpg": "picture",
    ".jpeg": "picture",
    ".bmp": "picture",
    ".dcm": "dicom",
    ".dicom": "dicom",
}

# (offset, first bytes there) -> format, for files whose name tells nothing.
MAGICS = (
    (0, b"\x5c\x01\x00\x00", "nifti"),  # sizeof_hdr 348, little-endian
    (0, b"\x00\x00\x01\x5c", "nifti"),
    (0, b"\x1c\x02\x00\x00", "nifti"),  # sizeof_hdr 540, NIfTI-2
    (0, b"\x00\x00\x02\x1c", "nifti"),
    (344, b"n+1\0", "nifti"),
    (0, b"NRRD000", "nrrd"),
    (0, b"ObjectType", "metaimage"),
    (128, b"DICM", "dicom"),  # before TIFF, whose first bytes a DICOM file may carry too: PS3.10 section 7.1
    (0, b"\x89PNG\r\n\x1a\n", "picture"),
    (0, b"II*\0", "picture"),
    (0, b"MM\0*", "picture"),
    (0, b"\xff\xd8\xff", "picture"),
)
KNOWN = "NIfTI (.nii, .nii.gz, .hdr with .img), NRRD, MetaImage (.mha, .mhd), PNG, TIFF, JPEG, BMP or DICOM"
GZIP_MAGIC = b"\x1f\x8b"


def extension_of(path: PurePath) -> str | None:
    """The known extension that a file name ends with, capitals or not."""
    name = path.name.lower()
    return next((extension for extension in EXTENSIONS if name.endswith(extension)), None)


def stem_of(path: PurePath) -> str:
    """The file's name without its extension, one of two parts such as `.nii.gz` being one."""
    return path.name[: -len(extension_of(path) or path.suffix) or None]


def is_image_file(path: PurePath) -> bool:
    """Whether a file is an image by itself, told by its name: no slice of a DICOM series, no voxels of a .hdr file."""
    extension = extension_of(path)
    return extension is not None and EXTENSIONS[extension] != "dicom" and not extension.startswith(".img")


def format_of(path: Path) -> str:
    """The format of a file: by its extension, else by its first bytes. Raises ReadError where neither is known."""
    extension = extension_of(path)
    if extension is not None:
        return EXTENSIONS[extension]
    start = first_bytes(path, 512)
    for offset, magic, name in MAGICS:
        if start[offset : offset + len(magic)] == magic:
            if name != "nifti" and _is_gzip(path):
                raise refusal(path, f"is gzip around a file of format {name}", "unpack it with gunzip first")
            return name
    raise ReadError(f"{path}: is of no known format; convert it to {KNOWN}")


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(GZIP_MAGIC)) == GZIP_MAGIC


def first_bytes(path: Path, count: int) -> bytes:
    """The first bytes of a file, gzip undone where it is used. Raises ReadError where it cannot be opened."""
    try:
        with path.open("rb") as stream:
            start = stream.read(count)
        if start.startswith(GZIP_MAGIC):
            with gzip.open(path) as stream:
                start = stream.read(count)
    except (OSError, EOFError, zlib.error) as error:
        raise cannot_open(path, error) from error
    if not start:
        raise ReadError(f"{path}: is empty; fetch the file again")
    return start


def refusal(path: Path, what: str, fix: str) -> ReadError:
    """The error for a file that cannot be used: where, what is wrong, what to do."""
    return ReadError(f"{path}: {what}; {fix}")


def one_line(error: BaseException) -> str:
    """A library's message in one short line, for the middle of ours."""
    return " ".join(str(error).split())[:160] or type(error).__name__


def cannot_open(path: Path, error: OSError | EOFError | zlib.error) -> ReadError:
    """The error for a file that is absent, closed to us, or damaged on the way."""
    if isinstance(error, FileNotFoundError):
        return ReadError(f"{path}: no such file; check the path")
    reason = getattr(error, "strerror", None) or one_line(error)
    return refusal(path, f"cannot be read ({reason})", "check its rights, or fetch the file again")
