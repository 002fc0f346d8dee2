"""The rule that picks one series out of a study, kept apart so that a config can hold it without reading any DICOM."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from medseg.config import Settings

Plane = Literal["axial", "coronal", "sagittal"]


class SeriesRule(Settings):
    """What a series must be to be chosen; every field that is given must hold, and exactly one series may be left."""

    description: str | None = None  # glob over SeriesDescription, case ignored: "*HippoCrop*"
    modality: str | None = None  # DICOM's code: MR, CT, PT
    series_uid: str | None = None
    study_uid: str | None = None
    orientation: Plane | None = None  # the plane that its slices lie nearest to
    min_slices: int = Field(default=1, ge=1)
    part: str | None = None  # glob over what sets parts of one series apart: "echo time 20*"
    allow_blank_uids: bool = False  # take a series whose study or series UID is blank; its files' folder is its name

    def describe(self) -> str:
        """One line for messages: only what was asked for."""
        asked = self.model_dump(exclude_defaults=True)
        return ", ".join(f"{key}={value}" for key, value in asked.items()) or "any image series"
