"""How values out of DICOM may appear in a message: an allow-list, so that no patient's text reaches a log."""

from __future__ import annotations

import re

_UID = re.compile(r"[0-9.]{1,64}")
_LONGEST_TEXT = 64  # characters of a LO value, PS3.5 table 6.2-1


def is_uid(text: str) -> bool:
    """Whether text has a UID's characters and length; leading zeros, which real archives hold, are let through."""
    return _UID.fullmatch(text) is not None


def shown_uid(uid: str) -> str:
    """A UID for a message; anything else is not repeated."""
    if not uid:
        return "(blank UID)"
    return uid if is_uid(uid) else "(not a UID)"


def shown_text(text: str) -> str:
    """A SeriesDescription for a message or a header of ours: one line, printable, at most 64 characters."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())
    return line if len(line) <= _LONGEST_TEXT else line[: _LONGEST_TEXT - 3] + "..."


def shown_code(code: str) -> str:
    """A modality or other coded string for a message; anything else is not repeated."""
    return code if re.fullmatch(r"[A-Z0-9_]{1,16}", code) else "?"
