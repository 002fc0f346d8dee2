"""What `medseg infer` leaves: the files of each result, the record of all, and what a person reads of it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medseg.errors import MedsegError, WriteError
from medseg.io.atomic import atomic_write_text
from pipelines.console import Console
from pipelines.sources import Source

if TYPE_CHECKING:
    from medseg.io.dicom import Series
    from medseg.volume import Segmentation

RECORD = "inference.json"


@dataclass
class Record:
    """What became of every input; `inference.json` at the end, however the end comes."""

    model: str
    assignments: Sequence[str]
    sources: Sequence[Source]
    done: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def kept(self, folder: Path) -> Iterator[None]:
        """Writes the record when the block ends; where it is broken off too, with what was finished until then."""
        try:
            yield
        except (MedsegError, KeyboardInterrupt):
            with suppress(WriteError):  # the disk is full: the first error says so
                self._write(folder)
            raise
        self._write(folder)

    def finish(self, source: Source, segmentation: Segmentation, series: Series | None, files: Sequence[Path]) -> None:
        """Takes down a result that lies on the disk."""
        entry: dict[str, Any] = {"name": source.name, "input": str(source.path), "files": [str(file) for file in files]}
        if series is not None:
            entry["series"] = series.describe()
        if segmentation.geometry.dims == 3 and segmentation.geometry.unit == "mm":
            entry["volume_ml"] = {name: round(segmentation.volume_ml(name), 4) for name in segmentation.labels.names}
        if segmentation.provenance.notes:  # what reading decided, for instance that left and right are unknown
            entry["notes"] = list(segmentation.provenance.notes)
        if source.left_out:
            entry["left_out"] = list(source.left_out)
        self.done.append(entry)

    def fail(self, source: Source, error: MedsegError) -> None:
        """Takes down why an input has no result, its path in front where the error names a series only."""
        path = str(source.path)
        self.failed[path] = str(error) if path in str(error) else f"{path}: {error}"

    @property
    def content(self) -> dict[str, Any]:
        """The record in JSON's own types."""
        settled = {entry["input"] for entry in self.done} | self.failed.keys()
        waiting = [str(source.path) for source in self.sources if str(source.path) not in settled]
        content = {"model": self.model, "set": list(self.assignments), "cases": self.done, "failed": self.failed}
        return {**content, "not_reached": waiting} if waiting else content

    def show(self, console: Console, output: Path) -> None:
        """A table of volumes, then for each input its series, what was noted and what was left out."""
        measured = [entry for entry in self.done if "volume_ml" in entry]
        if measured:
            names = list(measured[0]["volume_ml"])
            rows = [[one["name"], *(f"{one['volume_ml'][name]:.2f}" for name in names)] for one in measured]
            console.table(["case", *(f"{name} ml" for name in names)], rows)
        for entry in self.done:
            lines = [f"series {entry['series']}"] if "series" in entry else []
            lines += [f"note: {note}" for note in entry.get("notes", ())]
            lines += [f"left out, no part of the study: {name}" for name in entry.get("left_out", ())]
            for line in lines:
                console.say(f"{entry['name']}: {line}")
        console.say(f"segmentations: {output}")

    def _write(self, folder: Path) -> None:
        atomic_write_text(folder / RECORD, json.dumps(self.content, indent=2) + "\n")


def write(
    segmentation: Segmentation, series: Series | None, output: Path, name: str, formats: Sequence[str]
) -> list[Path]:
    """The files of one result: each whole, and all of them or none."""
    from medseg.io import write_nifti
    from medseg.io.dicom import write_dicom_seg

    with all_or_none() as files:
        if "dicom-seg" in formats and series is not None:
            files.append(write_dicom_seg(segmentation, series, output / f"{name}_seg.dcm"))
        if "nifti" in formats and segmentation.geometry.unit == "px":
            _write_pictures(segmentation, output, name, files)
        elif "nifti" in formats:
            files.append(write_nifti(segmentation, output / f"{name}_label.nii.gz"))
    return files


@contextmanager
def all_or_none() -> Iterator[list[Path]]:
    """A list of files that are removed again where writing the next one fails."""
    files: list[Path] = []
    try:
        yield files
    except MedsegError:
        for file in files:
            file.unlink(missing_ok=True)
        raise


def _write_pictures(segmentation: Segmentation, output: Path, name: str, files: list[Path]) -> None:
    """One PNG; where labels overlap one for each, named after its value, since a pixel holds one number."""
    from medseg.io import write_picture
    from medseg.labels import LabelSet
    from medseg.volume import Segmentation

    if segmentation.labels.is_exclusive:
        files.append(write_picture(segmentation, output / f"{name}_label.png"))
        return
    for label in segmentation.labels.labels:
        alone = LabelSet(labels=(label.model_copy(update={"pair": None}),))
        array = segmentation.mask(label.name).astype("int32") * label.value
        one = Segmentation(array, segmentation.geometry, alone, segmentation.provenance)
        files.append(write_picture(one, output / f"{name}_label_{label.value}.png"))
