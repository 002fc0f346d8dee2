"""What every layout answers: which files make up which case, and which files it could not place."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medseg.config import NamedSettings
from medseg.data.dataset import Case
from medseg.data.file_names import is_image, is_junk
from medseg.errors import ManifestError

# Usual names of the folders that hold all images, and all labels.
IMAGE_FOLDERS = ("images", "image", "imgs", "img")
LABEL_FOLDERS = ("labels", "label", "masks", "mask", "segmentations", "annotations")


@dataclass(frozen=True)
class Found:
    """The cases of a folder, before any image is opened. Nothing is dropped: the rest is `unmatched` or in `notes`."""

    cases: tuple[Case, ...]
    channels: tuple[str, ...] = ()  # empty: to be told from the files
    label_names: Mapping[str, int] = field(default_factory=dict)  # empty: to be told from the values found
    regions: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # name -> label values that it unites
    ignore: int | None = None
    unmatched: tuple[str, ...] = ()  # "images/a.nii.gz has no label"
    notes: tuple[str, ...] = ()  # what was left out on purpose
    about: Mapping[str, str] = field(default_factory=dict)  # of dataset.yaml: licence, source, description ...


class LayoutConfig(NamedSettings):
    """One way in which people arrange images and labels in folders, with its settings."""

    @abstractmethod
    def recognises(self, source: Path) -> bool:
        """Whether a folder looks like this layout, judged by names alone."""

    @abstractmethod
    def find(self, source: Path) -> Found:
        """The cases below a folder. Raises ManifestError where the settings leave a choice open."""


def left_out(files: Iterable[str]) -> tuple[list[str], tuple[str, ...]]:
    """The image files among `files`, and notes that name the others."""
    listed = list(files)
    junk = [path for path in listed if is_junk(path)]
    images = [path for path in listed if is_image(path) and not is_junk(path)]
    others = [path for path in listed if not is_image(path) and not is_junk(path)]
    notes = []
    if junk:
        notes.append(f"left out, files of the operating system: {shorten(junk)}")
    if others:
        notes.append(f"left out, no images: {shorten(others)}")
    return images, tuple(notes)


def patient_of(case_id: str, pattern: str | None) -> str:
    """The patient that a case id names: the pattern's first group, or the id where there is no pattern."""
    if pattern is None:
        return case_id
    try:
        match = re.search(pattern, case_id)
    except re.error as error:
        raise ManifestError(
            f"patient: {pattern!r} is no regular expression ({error}); for instance '(sub-[^_]+)'"
        ) from error
    if match is None:
        raise ManifestError(f"patient: {pattern!r} finds nothing in case id {case_id!r}; correct the expression")
    return match.group(1) if match.groups() else match.group()


def shorten(names: Iterable[str], most: int = 8) -> str:
    """Names for a message, the first ones and a count of the rest."""
    listed = list(names)
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
