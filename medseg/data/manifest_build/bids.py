"""The layout of BIDS: sub-*/[ses-*]/anat/ for images, derivatives/labels/ with the same folders for labels."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from medseg.data.dataset import Case
from medseg.data.file_names import list_files, list_folders, stem
from medseg.data.manifest_build.base import Found, LayoutConfig, left_out, shorten
from medseg.errors import ManifestError


class BidsLayout(LayoutConfig):
    """A case is a subject, or one session of it; the patient is the subject.

    The label is the derivative of the first channel: its name, `_<label>` added.
    """

    name: Literal["bids"] = "bids"
    channels: tuple[str, ...] = ()  # BIDS suffixes such as T1w; empty: the only one there is
    label: str | None = None  # ending of the labels' names, such as seg-manual; None: the only one there is
    derivative: str = "labels"  # folder below derivatives

    def recognises(self, source: Path) -> bool:
        return any(name.startswith("sub-") for name in list_folders(source)) and (source / "derivatives").is_dir()

    def find(self, source: Path) -> Found:
        labels_folder = f"derivatives/{self.derivative}"
        if not (source / labels_folder).is_dir():
            known = list_folders(source, "derivatives") if (source / "derivatives").is_dir() else []
            raise ManifestError(
                f"{source}: has no {labels_folder}; set derivative to one of: {', '.join(known) or 'none'}"
            )
        subjects = [name for name in list_folders(source) if name.startswith("sub-")]
        files, notes = left_out(path for name in subjects for path in list_files(source, name, deep=True))
        images = _by_case(files)
        channels = self.channels or _only_channel(source, images)
        label_files, label_notes = left_out(list_files(source, labels_folder, deep=True))
        ending = self.label or _only_ending(source, images, label_files, channels[0])
        cases, unmatched, used = [], [], set()
        labels = {stem(path): path for path in label_files}
        for case_id, by_suffix in sorted(images.items()):
            missing = [name for name in channels if name not in by_suffix]
            unmatched += [f"case {case_id} has no {name} image" for name in missing]
            if missing:
                continue
            paths = tuple(by_suffix[name] for name in channels)
            label = labels.get(f"{stem(paths[0])}_{ending}")
            if label is None:
                unmatched.append(f"{paths[0]} has no label {stem(paths[0])}_{ending}")
                continue
            used.add(label)
            cases.append(Case(case_id, case_id.split("_")[0], None, paths, label))
        unmatched += _strange(label_files, used, images, ending)
        skipped = sorted({name for by_suffix in images.values() for name in by_suffix} - set(channels))
        notes += (f"left out, images of other contrasts: {', '.join(skipped)}",) if skipped else ()
        return Found(tuple(cases), channels, unmatched=tuple(unmatched), notes=(*notes, *label_notes))


def _by_case(files: Sequence[str]) -> dict[str, dict[str, str]]:
    """Case -> suffix (with entities other than subject and session, such as acq-) -> path."""
    images: dict[str, dict[str, str]] = defaultdict(dict)
    for path in files:
        parts = stem(path).split("_")
        place = [part for part in parts if part.startswith(("sub-", "ses-"))]
        rest = [part for part in parts if part not in place]
        images["_".join(place)]["_".join(rest)] = path
    return dict(images)


def _only_channel(source: Path, images: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
    found = sorted({name for by_suffix in images.values() for name in by_suffix})
    if len(found) != 1:
        contrasts = ", ".join(found) or "no contrast"
        raise ManifestError(
            f"{source}: holds images of {contrasts}; choose with --set channels=[{found[0] if found else 'T1w'}]"
        )
    return tuple(found)


def _only_ending(source: Path, images: Mapping[str, Mapping[str, str]], labels: Sequence[str], channel: str) -> str:
    """What the labels of the first channel add to its name, where they all add the same."""
    stems = [stem(by_suffix[channel]) for by_suffix in images.values() if channel in by_suffix]
    endings = sorted(
        {stem(path)[len(one) + 1 :] for path in labels for one in stems if stem(path).startswith(f"{one}_")}
    )
    if len(endings) != 1:
        found = ", ".join(endings) or f"none (labels are {shorten(labels, 3) or 'absent'})"
        raise ManifestError(
            f"{source}: labels of {channel} end in: {found}; choose with --set label=seg-manual or such"
        )
    return endings[0]


def _strange(labels: Sequence[str], used: set[str], images: Mapping[str, Mapping[str, str]], ending: str) -> list[str]:
    """Labels with the chosen ending that no image claims; labels of other kinds belong to other manifests."""
    known = {stem(path) for by_suffix in images.values() for path in by_suffix.values()}
    strange = []
    for path in labels:
        name = PurePosixPath(path).name
        if path not in used and stem(path).endswith(f"_{ending}") and stem(path)[: -len(ending) - 1] not in known:
            strange.append(f"{path} has no image ({name})")
    return strange
