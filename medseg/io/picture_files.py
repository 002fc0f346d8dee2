"""Reads and writes pictures (PNG, TIFF, and JPEG or BMP as images) through Pillow, without any silent loss.

A picture's array is `(C, X, Y)`: X is the column, Y the row, and its grid is in pixels. Its place in the file counts:
an EXIF orientation is not applied, for a label beside it would not turn with it; a note says so.

Images: grey pictures have one channel, colour three; a palette is turned into its colours; an alpha channel is dropped
where it is opaque everywhere and refused otherwise.
Labels: grey levels and palette indices are the label values, colours of a palette mean nothing. A palette of greys that
differ from their indices is refused, as nobody can tell which of the two is meant; so are RGB and lossy files.
Several pages, 16-bit colour (of which Pillow would drop the lower byte) and pictures beyond Pillow's limit against
decompression bombs are refused.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from medseg.errors import ConfigError, LabelError
from medseg.geometry import Geometry
from medseg.io.atomic import atomic_path
from medseg.io.checks import require_finite
from medseg.io.formats import first_bytes, one_line, refusal
from medseg.volume import Provenance, Segmentation, Volume

if TYPE_CHECKING:
    from PIL.Image import Image

_FORMATS = ("PNG", "TIFF", "JPEG", "BMP")
_GREY = {"1", "L", "I", "F", "I;16", "I;16B", "I;16L"}
_ORIENTATION = 0x0112  # EXIF tag; 1 is upright
_LOSSY_TIFF = {"jpeg", "tiff_jpeg", "webp"}
_PNG_LEVELS = {"L;2": 85, "L;4": 17}  # Pillow stretches grey levels of 2 and 4 bits to 0..255


@dataclass(frozen=True)
class _Picture:
    """A decoded picture and what its file said of it."""

    path: Path
    image: Image
    is_lossy: bool
    raw_modes: tuple[str, ...]  # how the pixels lay in the file, by Pillow's names
    notes: tuple[str, ...]


def read_picture(path: Path) -> Volume:
    """A picture as an image. Raises ReadError."""
    picture = _decoded(path)
    image = _without_alpha(picture.image, path)
    if image.mode == "P":
        image = image.convert("RGB")
    if image.mode not in _GREY | {"RGB"}:
        raise refusal(path, f"has the colours {image.mode}", "convert it to grey or RGB")
    return _volume(image, picture)


def read_picture_label(path: Path) -> Volume:
    """A picture's grey levels or palette indices, one channel. Raises ReadError and LabelError."""
    picture = _decoded(path)
    if picture.is_lossy:
        raise LabelError(f"{path}: is compressed with loss, so its label values are not exact; store labels as PNG")
    image = picture.image if picture.image.mode == "P" else _without_alpha(picture.image, path)
    if image.mode not in _GREY | {"P"}:
        raise LabelError(
            f"{path}: is a {image.mode} colour picture, not label values; store one integer a pixel as grey PNG"
        )
    _refuse_ambiguous_greys(image, path)
    volume = _volume(image, picture)
    step = next((_PNG_LEVELS[mode] for mode in picture.raw_modes if mode in _PNG_LEVELS), 1)
    return volume if step == 1 else Volume(volume.array // step, volume.geometry, volume.provenance)


def write_picture(segmentation: Segmentation, path: Path) -> Path:
    """Writes a 2D exclusive label as a grey PNG whose levels are the label values, whole or not at all.

    8 bits, or 16 where a value needs them. A spacing in mm is not kept. Raises ConfigError and WriteError.
    """
    from PIL import Image

    label = segmentation.array
    if path.suffix.lower() != ".png":
        raise ConfigError(f"{path}: label pictures are PNG; change the name to end in .png")
    if segmentation.geometry.dims != 2 or not segmentation.labels.is_exclusive:
        raise ConfigError(f"{path}: only a 2D label of an exclusive label set fits into a PNG; write NIfTI")
    if label.min() < 0 or label.max() > 65535:
        raise ConfigError(f"{path}: label values {label.min()} to {label.max()} do not fit into a PNG; write NIfTI")
    levels = label.T.astype(np.uint8 if label.max() <= 255 else np.uint16)
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(levels)).save(temporary, format="PNG")
    return path


def write_picture_values(volume: Volume, path: Path) -> Path:
    """Writes one channel of real numbers in 2D as a TIFF of float32, whole or not at all; a spacing is not kept.

    Raises ConfigError and WriteError.
    """
    from PIL import Image

    if path.suffix.lower() not in (".tif", ".tiff"):
        raise ConfigError(f"{path}: real numbers fit into a TIFF only; change the name to end in .tif")
    if volume.geometry.dims != 2 or volume.channels != 1:
        raise ConfigError(f"{path}: only one channel in 2D fits into a TIFF; write NIfTI")
    with atomic_path(path) as temporary:
        Image.fromarray(np.ascontiguousarray(volume.array[0].T, dtype=np.float32)).save(temporary, format="TIFF")
    return path


def _decoded(path: Path) -> _Picture:
    """The decoded picture; whatever Pillow raises over a bad one becomes a ReadError."""
    from PIL import Image, UnidentifiedImageError

    first_bytes(path, 8)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as image:
                raw_modes = _raw_modes(image)
                _require_one_plain_page(image, raw_modes, path)
                image.load()
                is_lossy = image.format == "JPEG" or image.info.get("compression") in _LOSSY_TIFF
                return _Picture(path, image, is_lossy, raw_modes, _notes(image))
    except Image.DecompressionBombError as error:
        raise refusal(path, "has more pixels than a picture may have", "cut it into parts, or convert it") from error
    except UnidentifiedImageError as error:  # its text repeats the path
        raise refusal(path, "is no picture, whatever its name says", _AGAIN) from error
    except (OSError, SyntaxError, ValueError, EOFError, OverflowError, MemoryError) as error:
        raise refusal(path, f"cannot be read as a picture ({one_line(error)})", _AGAIN) from error
    except (TypeError, KeyError, IndexError, AttributeError, ZeroDivisionError) as error:  # damaged TIFF directories
        raise refusal(path, f"has a damaged header ({type(error).__name__})", _AGAIN) from error
    except (struct.error, zlib.error, RuntimeError) as error:
        raise refusal(path, f"is damaged ({one_line(error)})", _AGAIN) from error


_AGAIN = "give PNG or TIFF of grey or RGB, or fetch the file again"


def _require_one_plain_page(image: Image, raw_modes: tuple[str, ...], path: Path) -> None:
    """Raises ReadError for what Pillow would read in part only."""
    pages = getattr(image, "n_frames", 1)
    if pages > 1:
        raise refusal(path, f"has {pages} pages", "store one picture a file, or a stack as NIfTI")
    if image.mode in ("RGB", "RGBA", "RGBX", "LA", "PA") and any(";16" in mode for mode in raw_modes):
        raise refusal(path, "has colours of 16 bits, of which 8 would be lost", "store 8 bits, or channels as NIfTI")


def _raw_modes(image: Image) -> tuple[str, ...]:
    """How the pixels lie in the file; Pillow forgets it once they are loaded."""
    found: list[str] = []
    for tile in getattr(image, "tile", ()):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        found += [argument for argument in arguments if isinstance(argument, str)]
    return tuple(found)


def _without_alpha(image: Image, path: Path) -> Image:
    """The picture without its alpha channel or transparent colour. Raises ReadError where something shines through."""
    plain = {"RGBA": "RGB", "LA": "L", "PA": "RGB"}
    if "transparency" in image.info and image.mode in ("P", "L", "RGB"):
        image, plain = image.convert("LA" if image.mode == "L" else "RGBA"), {"RGBA": "RGB", "LA": "L"}
    if image.mode not in plain:
        return image
    if image.mode == "PA":
        image = image.convert("RGBA")
    lowest = image.getchannel("A").getextrema()[0]
    if lowest != 255:
        raise refusal(path, "has an alpha channel that is not opaque everywhere", "store it without alpha")
    return image.convert(plain[image.mode])


def _refuse_ambiguous_greys(image: Image, path: Path) -> None:
    """Raises LabelError for a palette of greys, in the indices used, that differ from their indices."""
    if image.mode != "P":
        return
    used = np.unique(np.asarray(image))
    entries = np.frombuffer(image.palette.tobytes(), dtype=np.uint8) if image.palette else np.zeros(0, np.uint8)
    width = len(image.palette.mode) if image.palette else 3
    colours = entries[: len(entries) // width * width].reshape(-1, width)[:, :3]
    used = used[used < len(colours)]
    greys = colours[used]
    if len(used) and (greys == greys[:, :1]).all() and (greys[:, 0] != used).any():
        raise LabelError(
            f"{path}: its palette shows grey {greys[:, 0].tolist()[:6]} for the indices {used.tolist()[:6]}, so the "
            "label values are ambiguous; store them as plain grey PNG"
        )


def _volume(image: Image, picture: _Picture) -> Volume:
    """Rows and columns turned into `(C, X, Y)`."""
    pixels = np.asarray(image)
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=True)
    array = pixels.T[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 1, 0)
    require_finite(array, str(picture.path))
    geometry = Geometry.from_spacing(array.shape[1:], (1.0, 1.0), unit="px")
    return Volume(array, geometry, Provenance(str(picture.path), (picture.path,), "picture", notes=picture.notes))


def _notes(image: Image) -> tuple[str, ...]:
    orientation = image.getexif().get(_ORIENTATION, 1)
    return () if orientation == 1 else (f"EXIF orientation {orientation} was not applied",)
