"""The layout of challenges with several contrasts: one folder a case, its files named after what they show."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from medseg.data.dataset import Case
from medseg.data.file_names import is_image, is_junk, list_files, list_folders, stem
from medseg.data.manifest_build.base import (
    IMAGE_FOLDERS,
    LABEL_FOLDERS,
    Found,
    LayoutConfig,
    left_out,
    patient_of,
    shorten,
)
from medseg.errors import ManifestError

_LABEL = re.compile(r"(?:^|[_\-.])(?:seg|mask|label|gt)(?:$|[_\-.])", re.IGNORECASE)


class CaseFoldersLayout(LayoutConfig):
    """`<case>/<channel>.nii.gz` and `<case>/<label>.nii.gz`; names may begin with the case's, as BraTS has it."""

    name: Literal["case_folders"] = "case_folders"
    channels: tuple[str, ...] = ()  # file names without ending; empty: every file that is no label
    label: str | None = None  # empty: the only one whose name says seg, mask, label or gt
    patient: str | None = None  # regular expression that finds the patient in a case id

    def recognises(self, source: Path) -> bool:
        folders = list_folders(source)
        if any(name.lower() in (*IMAGE_FOLDERS, *LABEL_FOLDERS) for name in folders):
            return False
        filled = [
            name for name in folders if any(is_image(path) and not is_junk(path) for path in list_files(source, name))
        ]
        return bool(filled) and len(filled) == len(folders)

    def find(self, source: Path) -> Found:
        files, notes = left_out(path for name in list_folders(source) for path in list_files(source, name))
        by_case: dict[str, dict[str, str]] = {}
        for path in files:
            case_id = path.split("/")[0]
            by_case.setdefault(case_id, {})[_short(case_id, stem(path))] = path
        if not by_case:
            raise ManifestError(f"{source}: none of its folders holds images; choose another --layout")
        label = self.label or _only_label(source, by_case)
        channels = self.channels or _common(by_case, label)
        _refuse_labels_as_channels(source, () if self.channels else channels)
        cases, unmatched = [], []
        for case_id, named in sorted(by_case.items()):
            missing = [name for name in (*channels, label) if name not in named]
            unmatched += [f"case {case_id} has no file {name}" for name in missing]
            if not missing:
                paths = tuple(named[name] for name in channels)
                cases.append(Case(case_id, patient_of(case_id, self.patient), None, paths, named[label]))
        others = Counter(name for named in by_case.values() for name in named if name not in (*channels, label))
        if others and self.channels:
            notes += (f"left out, files named {', '.join(sorted(others))}",)
        else:
            unmatched += [
                f"{path} is in too few cases to be a channel"
                for named in by_case.values()
                for name, path in named.items()
                if name in others
            ]
        return Found(tuple(cases), channels, unmatched=tuple(unmatched), notes=notes)


def _short(case_id: str, name: str) -> str:
    """The file's name without the case's at its beginning."""
    rest = name.removeprefix(case_id).lstrip("_-. ") if name.startswith(case_id) else name
    return rest or name


def _only_label(source: Path, by_case: Mapping[str, Mapping[str, str]]) -> str:
    names = sorted({name for named in by_case.values() for name in named})
    labels = [name for name in names if _LABEL.search(name)]
    if len(labels) != 1:
        raise ManifestError(
            f"{source}: {'several files' if labels else 'no file'} of a case could be the label; files are: "
            f"{shorten(names)}; choose with --set label={(labels or names)[0]} --set {_example(names)}"
        )
    return labels[0]


def _refuse_labels_as_channels(source: Path, channels: Sequence[str]) -> None:
    """A label among the images would be learned from and never be there at inference: only a person may ask for it."""
    doubtful = [name for name in channels if _LABEL.search(name)]
    if doubtful:
        raise ManifestError(
            f"{source}: {shorten(doubtful)} would become a channel but is named like a label; "
            f"say which files are images with --set {_example(channels)}"
        )


def _example(names: Sequence[str]) -> str:
    """`channels=[...]` of the names that are not like a label's, ready to be pasted."""
    images = [name for name in names if not _LABEL.search(name)]
    return f"'channels=[{', '.join(images)}]'"


def _common(by_case: Mapping[str, Mapping[str, str]], label: str) -> tuple[str, ...]:
    """The files that more than half of the cases have: a case that lacks one is told so."""
    counts = Counter(name for named in by_case.values() for name in named if name != label)
    return tuple(sorted(name for name, count in counts.items() if 2 * count > len(by_case)))
