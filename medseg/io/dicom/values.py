"""Single values out of DICOM data sets, since any of them may be absent, blank, bent or of another type."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from medseg.io.dicom.tolerance import damage

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


class BadValue(Exception):
    """A header value that cannot be used; the file is kept, with this as its problem."""


class Values:
    """Values looked up in several datasets in turn: a frame's functional groups, the shared ones, the file itself."""

    def __init__(self, datasets: Iterable[Dataset]) -> None:
        self._datasets = list(datasets)

    def has(self, keyword: int | str) -> bool:
        return any(keyword in dataset for dataset in self._datasets)

    def numbers(self, keyword: str, count: int | None = None) -> tuple[float, ...] | None:
        """A value's numbers, or None where absent or blank. Raises BadValue for anything else."""
        found = next((dataset for dataset in self._datasets if keyword in dataset), None)
        if found is None:
            return None
        try:
            value = found[keyword].value
            if value is None or value == "" or value == []:
                return None
            several = value if isinstance(value, Iterable) and not isinstance(value, str | bytes) else [value]
            numbers = tuple(float(one) for one in several)
        except damage() as error:
            raise BadValue(f"{keyword} is not a number") from error
        if (count is not None and len(numbers) != count) or not all(map(math.isfinite, numbers)):
            raise BadValue(f"{keyword} holds {len(numbers)} numbers that cannot be used (expected {count or 'finite'})")
        return numbers

    def number(self, *keywords: str) -> float | None:
        """The first of several attributes that is there."""
        for keyword in keywords:
            numbers = self.numbers(keyword, 1)
            if numbers is not None:
                return numbers[0]
        return None

    def hint(self, *keywords: str) -> float | None:
        """A number that may help and may be bent: None where it cannot be used."""
        try:
            return self.number(*keywords)
        except BadValue:
            return None

    def integer(self, keyword: str, default: int | None = None) -> int:
        value = self.number(keyword)
        if value is None and default is None:
            raise BadValue(f"{keyword} is missing")
        if value is not None and value != int(value):
            raise BadValue(f"{keyword} is not a whole number")
        return int(value) if value is not None else int(default or 0)

    def texts(self, *keywords: str) -> tuple[str, ...]:
        """The values of the first attribute that is there; blank where absent or unreadable."""
        for keyword in keywords:
            for dataset in self._datasets:
                try:
                    value = dataset.get(keyword)
                except damage():
                    continue
                if value:
                    several = value if isinstance(value, Iterable) and not isinstance(value, str) else [value]
                    return tuple(str(one).strip(" \0") for one in several)
        return ()

    def text(self, *keywords: str) -> str:
        return "\\".join(self.texts(*keywords))
