"""Names and values in the form that a tracking store takes, so that nothing is refused late or cut in silence."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from typing import Any

from medseg.errors import TrackingError

_PUNCTUATION = "_-. :/"  # what MLflow allows in the names of parameters and metrics beside letters and digits


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Nested settings as `{"training.lr": 0.003}`; lists and empty mappings are written as JSON."""
    result: dict[str, object] = {}
    for key, value in settings.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            result |= flat(value, f"{name}.")
        else:
            result[name] = json.dumps(value, default=str) if isinstance(value, Mapping | list | tuple) else value
    return result


def admissible(name: str) -> str:
    """`name` with each character that MLflow refuses written as its code, so that two names never become one."""
    shown = [letter if _allowed(letter) else f"_x{ord(letter):x}_" for letter in name]
    return posixpath.normpath("".join(shown)).lstrip("/") if name else "_"


def _allowed(letter: str) -> bool:
    return letter in _PUNCTUATION or (letter.isascii() and letter.isalnum())


def artifact_path(name: str) -> tuple[str, str]:
    """The folder (possibly empty) and file of an artifact's name. Raises TrackingError for one that leaves the run."""
    folder, file = posixpath.split(posixpath.normpath(name))
    if not name or posixpath.isabs(name) or ".." in name.split("/") or file in ("", "."):
        raise TrackingError(f"artifact name {name!r} does not lie inside the run; give a relative path such as a/b.csv")
    return folder, file
