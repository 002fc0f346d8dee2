"""Pictures keep their columns, rows and values; whatever Pillow would lose is refused."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from medseg.errors import ConfigError, DataError, LabelError, ReadError, WriteError
from medseg.geometry import Geometry
from medseg.io import read_image, read_label, write_picture
from medseg.io.picture_files import write_picture_values
from medseg.labels import Label, LabelSet
from medseg.volume import Segmentation, Volume

LABELS = LabelSet(labels=(Label(name="a", value=1), Label(name="b", value=2)))
ROWS, COLUMNS = 3, 5
GREY = np.arange(ROWS * COLUMNS, dtype=np.uint8).reshape(ROWS, COLUMNS)
FEW = GREY % 3  # values 0, 1, 2


def save(pixels: np.ndarray, path: Path, **options: Any) -> Path:
    Image.fromarray(pixels).save(path, **options)
    return path


def refusal_of(path: Path) -> str | None:
    try:
        read_image(path)
    except DataError as error:
        return str(error)
    return None


def png(path: Path, depth: int, colour: int, rows: list[bytes], extra: bytes = b"") -> Path:
    """A PNG by hand, for kinds that Pillow does not write: PNG specification, sections 5 and 11."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", COLUMNS, ROWS, depth, colour, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = chunk(b"IHDR", header) + extra + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.tiff", "a.bmp", "A.PNG", "a"])
def test_grey_is_column_by_row_in_pixels(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    save(GREY, path, format={"a": "PNG", "A.PNG": "PNG"}.get(name))
    volume = read_image(path)
    assert volume.array.shape == (1, COLUMNS, ROWS)
    assert volume.array[0, 4, 1] == GREY[1, 4]
    np.testing.assert_array_equal(volume.array[0], GREY.T)
    assert volume.geometry.unit == "px"
    np.testing.assert_array_equal(volume.geometry.affine, np.eye(3))
    assert volume.provenance.format == "picture"


@pytest.mark.parametrize(
    ("dtype", "name"), [("uint16", "a.png"), ("uint16", "a.tif"), ("int32", "a.tif"), ("float32", "a.tif")]
)
def test_deep_grey_keeps_its_type_and_values(tmp_path: Path, dtype: str, name: str) -> None:
    pixels = (GREY.astype(np.int64) * 4000).astype(dtype)
    volume = read_image(save(pixels, tmp_path / name))
    np.testing.assert_array_equal(volume.array[0], pixels.T)
    assert volume.array.dtype == dtype


def test_big_endian_tiff_becomes_native(tmp_path: Path) -> None:
    pixels = (GREY.astype(np.uint16) * 4000).astype(">u2")
    image = Image.frombytes("I;16B", (COLUMNS, ROWS), pixels.tobytes())
    image.save(tmp_path / "a.tif")
    volume = read_image(tmp_path / "a.tif")
    assert volume.array.dtype.isnative
    np.testing.assert_array_equal(volume.array[0], pixels.T)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_rgb_becomes_three_channels(tmp_path: Path, name: str) -> None:
    pixels = np.stack([GREY, GREY + 50, GREY + 100], axis=-1)
    volume = read_image(save(pixels, tmp_path / name))
    np.testing.assert_array_equal(volume.array, pixels.transpose(2, 1, 0))


def test_palette_becomes_its_colours_as_an_image_and_its_indices_as_a_label(tmp_path: Path) -> None:
    image = Image.fromarray(FEW)
    image.putpalette([0, 0, 0, 200, 10, 20, 30, 220, 40])
    image.save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").array[:, 1, 0].tolist() == [200, 10, 20]
    np.testing.assert_array_equal(read_label(tmp_path / "a.png", LABELS).array, FEW.T)


@pytest.mark.parametrize("greys", [[0, 127, 255], [0, 2, 1]])
def test_palette_of_other_greys_is_ambiguous(tmp_path: Path, greys: list[int]) -> None:
    image = Image.fromarray(FEW)
    image.putpalette([grey for grey in greys for _ in range(3)])
    image.save(tmp_path / "a.png")
    with pytest.raises(LabelError, match=r"a\.png.*palette"):
        read_label(tmp_path / "a.png", LABELS)


def test_palette_of_its_own_greys_is_a_label(tmp_path: Path) -> None:
    image = Image.fromarray(FEW)
    image.putpalette([grey for grey in range(256) for _ in range(3)])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_label(tmp_path / "a.png", LABELS).array, FEW.T)


@pytest.mark.parametrize("channels", [2, 4])
@pytest.mark.parametrize(("lowest", "is_read"), [(255, True), (254, False)])
def test_alpha_is_dropped_only_where_it_is_opaque(tmp_path: Path, channels: int, lowest: int, is_read: bool) -> None:
    pixels = np.stack([GREY] * channels, axis=-1)
    pixels[..., -1] = 255
    pixels[1, 2, -1] = lowest
    path = save(pixels, tmp_path / "a.png")
    if is_read:
        np.testing.assert_array_equal(read_image(path).array, pixels[..., :-1].transpose(2, 1, 0))
    else:
        with pytest.raises(ReadError, match="alpha"):
            read_image(path)


def test_transparent_colour_in_use_is_refused(tmp_path: Path) -> None:
    for transparency, is_read in ((200, True), (7, False)):
        path = save(GREY, tmp_path / "a.png", transparency=transparency)
        if is_read:
            np.testing.assert_array_equal(read_image(path).array[0], GREY.T)
        else:
            with pytest.raises(ReadError, match="alpha"):
                read_image(path)


def test_one_bit_picture_is_zero_and_one(tmp_path: Path) -> None:
    path = save(GREY % 2 == 1, tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(path).array[0], GREY.T % 2)
    np.testing.assert_array_equal(read_label(path, LABELS).array, GREY.T % 2)


@pytest.mark.parametrize(("depth", "row"), [(2, bytes([0b00011000, 0b01000000])), (4, bytes([0x01, 0x20, 0x10]))])
def test_label_of_few_bits_is_not_stretched(tmp_path: Path, depth: int, row: bytes) -> None:
    path = png(tmp_path / "a.png", depth, 0, [row] * ROWS)
    np.testing.assert_array_equal(read_label(path, LABELS).array, np.tile([0, 1, 2, 0, 1], (ROWS, 1)).T)


@pytest.mark.parametrize(("colour", "samples"), [(2, 3), (6, 4), (4, 2)])
def test_colours_of_16_bits_are_refused(tmp_path: Path, colour: int, samples: int) -> None:
    path = png(tmp_path / "a.png", 16, colour, [bytes(COLUMNS * samples * 2)] * ROWS)
    with pytest.raises(ReadError, match="16 bits"):
        read_image(path)


def test_several_pages_are_refused(tmp_path: Path) -> None:
    page = Image.fromarray(GREY)
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page, page])
    with pytest.raises(ReadError, match="3 pages"):
        read_image(tmp_path / "a.tif")


def test_decompression_bomb_is_refused(tmp_path: Path) -> None:
    path = png(tmp_path / "a.png", 8, 0, [bytes(COLUMNS)] * ROWS)
    raw = bytearray(path.read_bytes())
    raw[16:24] = struct.pack(">II", 60000, 60000)
    raw[29:33] = struct.pack(">I", zlib.crc32(raw[12:29]))
    path.write_bytes(bytes(raw))
    with pytest.raises(ReadError, match=r"a\.png.*more pixels"):
        read_image(path)


def test_exif_orientation_is_not_applied_but_noted(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    volume = read_image(save(GREY, tmp_path / "a.png", exif=exif))
    np.testing.assert_array_equal(volume.array[0], GREY.T)
    assert "orientation 6" in volume.provenance.notes[0]


def test_jpeg_is_an_image_but_no_label(tmp_path: Path) -> None:
    for name in ("a.jpg", "disguised.png"):
        path = save(FEW, tmp_path / name, format="JPEG")
        assert read_image(path).array.shape == (1, COLUMNS, ROWS)
        with pytest.raises(LabelError, match="loss"):
            read_label(path, LABELS)


def test_jpeg_inside_tiff_is_no_label(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="loss"):
        read_label(save(FEW, tmp_path / "a.tif", compression="jpeg"), LABELS)


def test_colour_label_is_refused_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"a\.png.*RGB.*grey PNG"):
        read_label(save(np.stack([FEW] * 3, axis=-1), tmp_path / "a.png"), LABELS)


def test_label_value_out_of_the_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"a\.png.*255"):
        read_label(save(FEW * 127 + FEW // 2, tmp_path / "a.png"), LABELS)


def test_cmyk_is_refused(tmp_path: Path) -> None:
    Image.new("CMYK", (4, 4)).save(tmp_path / "a.tif")
    with pytest.raises(ReadError, match="CMYK"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.jpg"])
def test_damage_never_escapes_as_another_error(tmp_path: Path, name: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 30)).astype(np.uint8)
    path = save(pixels, tmp_path / name)
    whole = path.read_bytes()
    random = np.random.default_rng(1)
    damaged = [whole[:length] for length in (0, 1, 7, 20, 60, len(whole) // 2)]
    for _ in range(200):
        raw = bytearray(whole)
        for position in [*random.integers(0, len(raw), size=3), random.integers(max(0, len(raw) - 200), len(raw))]:
            raw[position] = random.integers(0, 256)
        damaged.append(bytes(raw))
    for raw_bytes in damaged:
        path.write_bytes(raw_bytes)
        refusal = refusal_of(path)
        assert refusal is None or (name in refusal and "\n" not in refusal)


@pytest.mark.parametrize("values", [[0, 1, 2], [0, 1, 300]])
def test_written_label_reads_back_exactly(tmp_path: Path, values: list[int]) -> None:
    labels = LabelSet(labels=tuple(Label(name=f"l{value}", value=value) for value in values[1:]))
    array = np.array(values)[FEW.T]
    segmentation = Segmentation(array, Geometry.from_spacing(array.shape, (1, 1), unit="px"), labels)
    path = write_picture(segmentation, tmp_path / "a.png")
    again = read_label(path, labels)
    np.testing.assert_array_equal(again.array, array)
    assert again.geometry.matches(segmentation.geometry)
    np.testing.assert_array_equal(np.asarray(Image.open(path)), array.T)
    assert path.read_bytes() == write_picture(segmentation, tmp_path / "b.png").read_bytes()


def test_written_numbers_read_back_exactly(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(size=(1, 5, 3)).astype(np.float32)
    volume = Volume(array, Geometry.from_spacing((5, 3), (1, 1), unit="px"))
    again = read_image(write_picture_values(volume, tmp_path / "a.tif"))
    np.testing.assert_array_equal(again.array, array)
    assert again.geometry.matches(volume.geometry)


def test_what_no_tiff_holds_is_refused(tmp_path: Path) -> None:
    two = Volume(np.zeros((2, 5, 3), np.float32), Geometry.from_spacing((5, 3), (1, 1), unit="px"))
    with pytest.raises(ConfigError, match="one channel in 2D"):
        write_picture_values(two, tmp_path / "a.tif")
    with pytest.raises(ConfigError, match=r"\.tif"):
        write_picture_values(two, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_what_no_png_holds_is_refused(tmp_path: Path) -> None:
    flat = Segmentation(FEW.T, Geometry.from_spacing((COLUMNS, ROWS), (1, 1)), LABELS)
    with pytest.raises(ConfigError, match=r"\.png"):
        write_picture(flat, tmp_path / "a.jpg")
    solid = Segmentation(np.zeros((2, 3, 4), int), Geometry.from_spacing((2, 3, 4), (1, 1, 1)), LABELS)
    with pytest.raises(ConfigError, match="2D"):
        write_picture(solid, tmp_path / "a.png")
    with pytest.raises(WriteError, match="nowhere"):
        write_picture(flat, tmp_path / "nowhere" / "a.png")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.real
def test_interpolated_chest_labels_are_refused(real_data: Path) -> None:
    labels = LabelSet(labels=(Label(name="lung", value=1),))
    distributed = sorted((real_data / "cxr_montgomery" / "masks_as_distributed").glob("*.png"))
    assert distributed
    for path in distributed:
        with pytest.raises(LabelError, match=path.name):
            read_label(path, labels)
    for path in sorted((real_data / "cxr_montgomery" / "masks").glob("*.png"))[:4]:
        np.testing.assert_array_equal(read_label(path, labels).array, np.asarray(Image.open(path)).T)
