"""How image files are told from other files, and what their names say."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from medseg.io.formats import is_image_file, stem_of

_JUNK = ("thumbs.db", "desktop.ini", "__macosx")


def stem(path: str) -> str:
    """The file's name without its ending, `.nii.gz` being one."""
    return stem_of(PurePosixPath(path))


def is_image(path: str) -> bool:
    """Whether the ending is one of an image format that a manifest can list as a file."""
    return is_image_file(PurePosixPath(path))


def is_junk(path: str) -> bool:
    """Whether an operating system left the file there: .DS_Store, ._x, Thumbs.db."""
    return any(part.startswith(".") or part.lower() in _JUNK for part in PurePosixPath(path).parts)


def list_files(root: Path, folder: str = "", deep: bool = False) -> list[str]:
    """The files of a folder below `root`, relative to `root`, sorted; `deep` goes into subfolders."""
    base = root / folder
    found: Iterable[Path] = base.rglob("*") if deep else base.iterdir()
    return sorted(path.relative_to(root).as_posix() for path in found if path.is_file())


def list_folders(root: Path, folder: str = "") -> list[str]:
    """The names of the folders in a folder below `root`, sorted, hidden ones left out."""
    return sorted(path.name for path in (root / folder).iterdir() if path.is_dir() and not is_junk(path.name))
