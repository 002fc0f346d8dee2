"""What a data set says about itself (dataset.yaml) and about one case of it (a row of cases.csv)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from medseg.config import Settings, suggestion
from medseg.errors import ManifestError
from medseg.labels import LabelSet

ChannelName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9+.-]*(_[A-Za-z0-9+.-]+)*$")]
_CASE_ID = re.compile(r"\w[\w.+=@ -]*(?<![. ])")


class Download(Settings):
    """A public archive that MONAI's own downloader fetches."""

    task: str  # a task of the Medical Segmentation Decathlon as MONAI names it
    md5: str | None = None  # of the archive: what this manifest was written for


class DatasetInfo(Settings):
    """dataset.yaml: where a data set comes from, what its images show, what its labels mean."""

    schema_version: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")
    version: str = Field(min_length=1)
    licence: str = Field(min_length=1)
    source: str = Field(min_length=1)
    citation: str = ""
    description: str = ""
    spatial_dims: Literal[2, 3] = 3
    channels: tuple[ChannelName, ...] = Field(min_length=1)  # in the order in which a network sees them
    labels: LabelSet
    layout: Literal["table", "msd"] = "table"  # table: cases.csv lists the cases; msd: the data's own dataset.json does
    folds: Literal["nnunet"] | None = None  # for layout msd: KFold(5, shuffle, random_state 12345) over sorted ids
    download: Download | None = None
    fetched_as: str | None = None  # a neighbouring manifest, read in this one's place where no data root is given

    @model_validator(mode="after")
    def _consistent(self) -> DatasetInfo:
        twice = sorted({name for name in self.channels if self.channels.count(name) > 1})
        if twice:
            raise ValueError(f"channel {', '.join(twice)} is given twice; each needs a name of its own")
        ambiguous = [name for name in self.channels if name.endswith("sha256")]
        if ambiguous:
            raise ValueError(f"channel {ambiguous[0]!r} would name a column of digests; choose another name")
        if (self.folds is not None) != (self.layout == "msd"):
            raise ValueError("`folds: nnunet` and `layout: msd` go together; with a table, cases.csv holds the folds")
        if self.fetched_as is not None and self.download is not None:
            raise ValueError("give `download`, or `fetched_as`, not both")
        return self


@dataclass(frozen=True)
class Case:
    """One image of one patient, its files named relative to the data root.

    `images` holds one path a channel, or a single path whose file holds them all. `fold` None belongs to no fold:
    it is trained on always and validated on never. Digests are `medseg.volume.digest` of voxels and affine.
    """

    id: str
    patient: str
    fold: int | None
    images: tuple[str, ...]
    label: str | None
    image_digests: tuple[str | None, ...] = ()
    label_digest: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict, hash=False)  # further columns: site, scanner ...
    annotated: tuple[str, ...] | None = None  # the labels that somebody looked for; None: all

    def __post_init__(self) -> None:
        if self.annotated is not None and not self.annotated:
            raise ValueError(f"case {self.id}: annotated lists no label; leave the label out, or give None for all")
        if not self.image_digests:
            object.__setattr__(self, "image_digests", (None,) * len(self.images))

    @property
    def files(self) -> tuple[tuple[str, str | None], ...]:
        """Each file with its digest: the channels in order, then the label."""
        label = () if self.label is None else ((self.label, self.label_digest),)
        return (*zip(self.images, self.image_digests, strict=True), *label)


def case_id_problem(case_id: str) -> str | None:
    """Why a text cannot name a case, or None. Results are named after cases, so an id must be a plain file name."""
    if len(case_id) > 120:
        return f"{case_id[:40]!r}... has {len(case_id)} characters; 120 are the most"
    if not _CASE_ID.fullmatch(case_id):
        return f"{case_id!r} cannot name a file; use letters, digits and . _ + = @ - (no blank or dot at the end)"
    return None


def annotated_problem(annotated: Sequence[str], labels: LabelSet) -> str | None:
    """Why a list of labels cannot be those that were looked for in a case, or None."""
    strangers = [name for name in annotated if name not in labels.names]
    if strangers:
        return f"{strangers[0]!r} is no label of the data set{suggestion(strangers[0], labels.names)}"
    lone = [one for one in labels.labels if one.pair and (one.name in annotated) != (one.pair in annotated)]
    if lone:
        return f"lists one of {lone[0].name!r} and {lone[0].pair!r}, which a mirror exchanges; list both or neither"
    return None


def path_problem(path: str) -> str | None:
    """Why a path from a manifest is refused, or None: only paths that stay below the data root are followed."""
    if PurePosixPath(path).is_absolute() or PureWindowsPath(path).drive or path.startswith("\\"):
        return f"{path!r} is absolute; give it relative to the data root"
    if "\\" in path:
        return f"{path!r} holds a backslash; write / between folders"
    if ".." in PurePosixPath(path).parts:
        return f"{path!r} leaves the data root by '..'; give a path below it"
    return None


def inside(data_root: Path, path: str, where: str) -> Path:
    """The file that a manifest names. Raises ManifestError where it lies, through a link, outside the data root."""
    problem = path_problem(path)
    if problem is None:
        found = data_root / path
        if found.resolve().is_relative_to(data_root.resolve()):
            return found
        problem = f"{path!r} is a link to a place outside the data root {data_root}; copy the file into it"
    raise ManifestError(f"{where}: {problem}")
