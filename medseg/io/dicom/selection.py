"""Choosing exactly one series by rule, because a wrong one gives a plausible and wrong answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from medseg.errors import DicomError
from medseg.io.dicom.rule import SeriesRule
from medseg.io.dicom.series import Series
from medseg.io.dicom.wording import shown_text

_SHOWN = 8  # candidates in a message


def select_series(series: Sequence[Series], rule: SeriesRule | None, where: str) -> Series:
    """The one series that the rule leaves; without a rule, the only image series.

    Raises DicomError that lists the candidates where there are none or several, and says how to choose.
    """
    rule = rule or SeriesRule()
    offered = [replace(one, takes_blank_uids=rule.allow_blank_uids) for one in series]
    images = [one for one in offered if one.is_image]
    fitting = [one for one in images if _fits(one, rule)]
    if len(fitting) == 1:
        return fitting[0]
    if len(fitting) > 1:
        raise DicomError(
            f"{where}: {len(fitting)} series fit ({rule.describe()}): {_listing(fitting)}; {_advice(fitting)}"
        )
    if images:
        raise DicomError(f"{where}: no series fits ({rule.describe()}); there are: {_listing(images)}")
    reasons = [one.refusal for one in offered if one.refusal is not None]
    if not reasons:
        raise DicomError(
            f"{where}: is or holds no DICOM image; give the folder of a series or study, or one of its files"
        )
    more = f" (and {len(reasons) - 1} more refused)" if len(reasons) > 1 else ""
    raise DicomError(f"{where}: holds no image series that can be read: {reasons[0]}{more}")


def _fits(series: Series, rule: SeriesRule) -> bool:
    return (
        _matches(series.description, rule.description)
        and _matches(series.part, rule.part)
        and rule.modality in (None, series.modality)
        and rule.series_uid in (None, series.uid)
        and rule.study_uid in (None, series.study_uid)
        and rule.orientation in (None, series.plane)
        and (rule.min_slices == 1 or len(series.positions) >= rule.min_slices)
    )


def _matches(text: str, glob: str | None) -> bool:
    return glob is None or fnmatchcase(text.casefold(), glob.casefold())


def _listing(series: Sequence[Series]) -> str:
    shown = [one.describe() for one in series[:_SHOWN]]
    return "; ".join(shown) + (f"; and {len(series) - _SHOWN} more" if len(series) > _SHOWN else "")


def _advice(series: Sequence[Series]) -> str:
    """What tells the candidates apart: their descriptions, or where these are equal, something else."""
    described = list(dict.fromkeys(shown_text(one.description) for one in series if one.description))
    if len(described) < 2:
        return "choose one by --series orientation=axial, min_slices=20, series_uid=... or part=..."
    return f"choose one by its description, for instance --series '*{described[0]}*'"
