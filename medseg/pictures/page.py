"""Panels in a row with a caption above and a legend below: the paper that pictures are printed on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

RGB = tuple[int, int, int]

PAPER: RGB = (16, 18, 22)
INK: RGB = (236, 236, 236)
_FAINT: RGB = (150, 154, 160)
_MARGIN, _LINE, _TEXT, _SWATCH = 16, 24, 15, 12  # px
_NARROWEST = 320  # px: a page takes at least this for its text


@dataclass(frozen=True)
class Panel:
    """One picture under its title; all panels of a page have one size."""

    title: str
    picture: Image.Image


@dataclass(frozen=True)
class Entry:
    """One line of the legend: a coloured area, or an outline."""

    name: str
    colour: RGB
    is_area: bool = True


def text_font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, so that pictures look the same on every machine."""
    return ImageFont.load_default(_TEXT)


def compose(panels: Sequence[Panel], caption: str, legend: Sequence[Entry]) -> Image.Image:
    """The page; caption and legend are broken into as many lines as they need."""
    width, height = panels[0].picture.size
    inner = max(len(panels) * (width + _MARGIN) - _MARGIN, _NARROWEST)
    lines, rows = _wrapped(caption, inner), _arranged(legend, inner)
    titles = _MARGIN + _LINE * len(lines) + (_MARGIN // 2 if lines else 0)
    legends = titles + _LINE + height + _MARGIN * 3 // 4
    page = Image.new("RGB", (inner + 2 * _MARGIN, legends + _LINE * len(rows) + _MARGIN), PAPER)
    draw, font = ImageDraw.Draw(page), text_font()
    for number, line in enumerate(lines):
        draw.text((_MARGIN, _MARGIN + number * _LINE), line, INK, font)
    for number, panel in enumerate(panels):
        left = _MARGIN + number * (width + _MARGIN)
        draw.text((left, titles), panel.title, _FAINT, font)
        page.paste(panel.picture, (left, titles + _LINE))
    for number, row in enumerate(rows):
        for start, entry in row:
            _draw_entry(draw, entry, _MARGIN + start, legends + number * _LINE)
    return page


def _draw_entry(draw: ImageDraw.ImageDraw, entry: Entry, left: float, top: int) -> None:
    first, last = (top + 3, top + 3 + _SWATCH) if entry.is_area else (top + 9, top + 10)
    draw.rectangle((left, first, left + _SWATCH, last), fill=entry.colour)
    draw.text((left + _SWATCH + 8, top), entry.name, INK, text_font())


def _arranged(legend: Sequence[Entry], width: int) -> list[list[tuple[float, Entry]]]:
    """The entries in rows of at most `width` px, each with its left edge."""
    rows: list[list[tuple[float, Entry]]] = []
    left = float(width)
    for entry in legend:
        needed = _SWATCH + 8 + text_font().getlength(entry.name) + 20
        if not rows or left + needed > width:
            rows.append([])
            left = 0.0
        rows[-1].append((left, entry))
        left += needed
    return rows


def _wrapped(text: str, width: int) -> list[str]:
    """The text in lines of at most `width` px, broken at spaces."""
    lines: list[str] = []
    for word in text.split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and text_font().getlength(joined) <= width:
            lines[-1] = joined
        else:
            lines.append(word)
    return lines
