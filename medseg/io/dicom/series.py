"""A series of slices as one value, so that listing, choosing, reading and writing speak of the same thing."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from medseg.io.dicom.headers import Frame
from medseg.io.dicom.wording import is_uid, shown_code, shown_text, shown_uid

SAME_DIRECTION = 1e-3  # difference of a cosine between slices that headers' rounding may make; 0.06 degrees


@dataclass(frozen=True)
class Series:
    """Frames that belong together: one SeriesInstanceUID, or the part of one that shares grid, echo and phase.

    `problem` says what is wrong with its files, None where nothing speaks against reading. `part` says in words
    what sets it apart from the other parts of the same series, blank where the series is whole.
    """

    uid: str
    study_uid: str
    modality: str
    description: str
    frames: tuple[Frame, ...]
    part: str = ""
    problem: str | None = None
    notes: tuple[str, ...] = ()
    takes_blank_uids: bool = False  # a rule said so

    @property
    def refusal(self) -> str | None:
        """Why it cannot be read as an image, or None."""
        if self.problem is not None or self.takes_blank_uids or not self.has_blank_uids:
            return self.problem
        return (
            f"{self.name}: its study UID is {shown_uid(self.study_uid)} and its series UID {shown_uid(self.uid)}; "
            "restore the UIDs, or choose it with --series allow_blank_uids=true"
        )

    @property
    def is_image(self) -> bool:
        return self.refusal is None

    @property
    def has_blank_uids(self) -> bool:
        return not (is_uid(self.uid) and is_uid(self.study_uid))

    @property
    def files(self) -> tuple[Path, ...]:
        """Each file once, in the order of the frames."""
        return tuple(dict.fromkeys(frame.header.file for frame in self.frames))

    @cached_property
    def positions(self) -> tuple[tuple[float, ...], ...]:
        """Where slices lie, LPS mm, each place once."""
        return tuple(dict.fromkeys(frame.position for frame in self.frames if frame.position is not None))

    @property
    def plane(self) -> str:
        """The anatomical plane that the slices lie nearest to; blank where unknown."""
        orientation = self.frames[0].orientation if self.frames else None
        if orientation is None:
            return ""
        normal = np.cross(orientation[:3], orientation[3:])
        return ("sagittal", "coronal", "axial")[int(np.abs(normal).argmax())]

    @property
    def name(self) -> str:
        """What messages call it: its UID, or the folder of its files where the UID is blank."""
        where = f"in {self.files[0].parent}" if not is_uid(self.uid) else self.uid
        return f"series {where}" + (f" ({self.part})" if self.part else "")

    def describe(self) -> str:
        """One line for messages and listings."""
        words = [f"'{shown_text(self.description)}'", shown_code(self.modality)]
        words += [
            f"{len(self.positions)} slice{'s' if len(self.positions) != 1 else ''}",
            self.plane,
            self.part,
            shown_uid(self.uid),
        ]
        return " ".join(word for word in words if word)
