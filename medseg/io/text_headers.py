"""Reads the text headers of NRRD and MetaImage, so that a hostile or damaged one is refused before a library opens it.

A header may name the file that holds the voxels. It may only name one plain file in its own folder: no absolute path,
no `..`, no list of files and no pattern, for a header from elsewhere could otherwise point at any file of the machine.
"""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from medseg.io.checks import MAX_DEFLATE_RATIO
from medseg.io.formats import cannot_open, refusal

_LONGEST_HEADER = 2**18  # bytes; far above any header seen, and small enough to read always
_META_BYTES = {"CHAR": 1, "UCHAR": 1, "SHORT": 2, "USHORT": 2, "INT": 4, "UINT": 4, "LONG": 4, "ULONG": 4}
_META_BYTES |= {"LONG_LONG": 8, "ULONG_LONG": 8, "FLOAT": 4, "DOUBLE": 8}
_NRRD_BYTES = {"char": 1, "short": 2, "int": 4, "longlong": 8, "float": 4, "double": 8}
_NRRD_BYTES |= {"int8": 1, "int16": 2, "int32": 4, "int64": 8}


@dataclass(frozen=True)
class TextHeader:
    """What a header says of its voxels."""

    path: Path
    fields: dict[str, str]  # keys in lower case
    data_path: Path
    data_start: int  # byte of data_path at which the voxels start
    sizes: tuple[int, ...]  # as written, the fastest axis first
    voxel_bytes: int
    compression: str  # "none", "deflate", or another that the library undoes

    def require_enough_data(self) -> None:
        """Raises ReadError where the data cannot hold what the header claims; a MetaImage's checksum is verified."""
        needed = math.prod(self.sizes) * self.voxel_bytes
        try:
            held = self.data_path.stat().st_size - self.data_start
        except OSError as error:
            raise cannot_open(self.data_path, error) from error
        ratio = {"none": 1, "deflate": MAX_DEFLATE_RATIO}.get(self.compression, 10**6)
        if held * ratio < needed:
            raise refusal(self.path, f"its data ({held} bytes) cannot hold the {needed} bytes that it claims", _AGAIN)
        if self.compression == "deflate" and "elementdatafile" in self.fields:
            self._require_intact_stream(needed)

    def _require_intact_stream(self, needed: int) -> None:
        """SimpleITK does not compare the checksum of a MetaImage's zlib stream; this does, in bounded memory."""
        inflate, length = zlib.decompressobj(wbits=47), 0  # 47: zlib or gzip, found by its first bytes
        try:
            with self.data_path.open("rb") as stream:
                stream.seek(self.data_start)
                while not inflate.eof and length <= needed:
                    part = inflate.unconsumed_tail or stream.read(2**16)
                    if not part:
                        break
                    length += len(inflate.decompress(part, 2**22))
        except (OSError, zlib.error) as error:
            raise refusal(self.path, f"its compressed data are damaged: {error}", _AGAIN) from error
        if length != needed or not inflate.eof:
            raise refusal(self.path, f"holds {length} bytes of voxels where {needed} are claimed", _AGAIN)


_AGAIN = "it is truncated or damaged: fetch the file again"


def read_metaimage_header(path: Path) -> TextHeader:
    """The header of an .mha or .mhd file. Raises ReadError."""
    fields, end = _meta_fields(_start_of(path))
    kind = fields.get("elementtype", "").removeprefix("MET_")
    if not end or kind not in _META_BYTES:
        what = "does not say where its voxels are" if not end else f"has the element type {kind!r}"
        raise refusal(path, f"is no MetaImage of plain numbers: it {what}", "convert it to NIfTI")
    if fields.get("binarydata", "true").lower() not in ("true", "1"):
        raise refusal(path, "holds its voxels as text", "convert it to NIfTI")
    is_local = fields["elementdatafile"].upper() == "LOCAL"
    return TextHeader(
        path=path,
        fields=fields,
        data_path=path if is_local else _beside(path, fields["elementdatafile"]),
        data_start=end if is_local else 0,
        sizes=_sizes(path, fields.get("dimsize", ""), fields.get("ndims", "")),
        voxel_bytes=_META_BYTES[kind] * _positive(path, fields.get("elementnumberofchannels", "1")),
        compression="deflate" if fields.get("compresseddata", "false").lower() in ("true", "1") else "none",
    )


def read_nrrd_header(path: Path) -> TextHeader:
    """The header of an .nrrd or .nhdr file. Raises ReadError."""
    raw = _start_of(path)
    if not re.match(rb"NRRD000[1-5]\s", raw):
        raise refusal(path, f"starts with {raw[:8]!r}, not with NRRD0001 to NRRD0005", "convert it, or write it anew")
    blank = re.search(rb"\r?\n\r?\n", raw)
    text = raw[: blank.start() if blank else len(raw)].decode("latin-1")
    pairs = [line.split(":", 1) for line in text.splitlines() if ":" in line and not line.startswith("#")]
    fields = {key.strip().lower(): value.strip() for key, value in pairs}
    named = fields.get("data file", fields.get("datafile"))
    encoding = fields.get("encoding", "").lower()
    if encoding in ("txt", "text", "ascii", "hex"):
        raise refusal(path, "holds its voxels as text", "convert it to NIfTI")
    if named is None and blank is None:
        raise refusal(path, "ends within its header", _AGAIN)
    kind = re.sub(r"^(un)?signed |^u(?!n)| int$|_t$", "", fields.get("type", "").lower()).replace(" ", "")
    if kind not in _NRRD_BYTES:
        raise refusal(path, f"has the type {fields.get('type')!r}", "convert it to NIfTI")
    return TextHeader(
        path=path,
        fields=fields,
        data_path=path if named is None else _beside(path, named),
        data_start=blank.end() if named is None and blank else 0,
        sizes=_sizes(path, fields.get("sizes", ""), fields.get("dimension", "")),
        voxel_bytes=_NRRD_BYTES[kind],
        compression={"raw": "none", "gzip": "deflate", "gz": "deflate"}.get(encoding, encoding),
    )


def _meta_fields(raw: bytes) -> tuple[dict[str, str], int]:
    """The fields up to ElementDataFile, which is the last, and where it ends; 0 where there is none."""
    fields: dict[str, str] = {}
    for match in re.finditer(rb"([^\r\n=:]*)[=:]([^\r\n]*)(\r\n|\r|\n|$)", raw):
        key = match[1].decode("latin-1").strip().lower()
        fields[key] = match[2].decode("latin-1").strip()
        if key == "elementdatafile":
            return fields, match.end()
    return fields, 0


def _start_of(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            raw = stream.read(_LONGEST_HEADER)
    except OSError as error:
        raise cannot_open(path, error) from error
    if not raw:
        raise refusal(path, "is empty", "fetch the file again")
    return raw


def _beside(path: Path, named: str) -> Path:
    """The data file that a header names, which must be one plain file in the header's folder or below."""
    parts = [*PurePosixPath(named).parts, *PureWindowsPath(named).parts]
    outside = PurePosixPath(named).is_absolute() or PureWindowsPath(named).anchor or ".." in parts or "\0" in named
    if outside:
        raise refusal(
            path, f"refers to {named!r}, outside its own folder", "do not trust it, or move the data beside it"
        )
    if not named or "%" in named or named.split()[0].upper() == "LIST":
        raise refusal(path, f"spreads its voxels over several files ({named!r})", "convert it to one file")
    data_path = path.parent / named
    if not data_path.is_file():
        raise refusal(path, f"its data file {named!r} is missing", "put it into the same folder")
    return data_path


def _sizes(path: Path, sizes: str, dims: str) -> tuple[int, ...]:
    found = sizes.split()
    if not found or not all(re.fullmatch(r"[0-9]{1,9}", size) and int(size) > 0 for size in found):
        raise refusal(
            path, f"claims the sizes {sizes[:60]!r}", "each axis needs at least one voxel; correct the header"
        )
    if dims != str(len(found)):
        raise refusal(path, f"claims {dims[:20]!r} axes and {len(found)} sizes", "correct the header")
    return tuple(map(int, found))


def _positive(path: Path, text: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,5}", text):
        raise refusal(path, f"claims {text[:20]!r} channels", "correct the header")
    return int(text)
