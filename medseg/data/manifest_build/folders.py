"""The layout that most people have: a folder of images beside a folder of labels, files paired by name."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from medseg.data.dataset import Case, path_problem
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

_SUFFIXES = ("_seg", "_label", "_mask", "-label", "-seg", "_segmentation", "_gt")
_VALIDATION = ("val", "valid", "validation")
_SEPARATORS = "_-."


class FoldersLayout(LayoutConfig):
    """images/ and labels/ (or masks/), or one folder for both where labels add a suffix to the image's name.

    Channels: files `<case>_<channel>`. images/train and images/val (or train/images and val/images) become fold 0 for
    validation; the training part is in no fold, so that it is always trained on. A test part is left out.
    """

    name: Literal["folders"] = "folders"
    images: str | None = None  # folder of the images; None: one of the usual names, or the folder itself
    labels: str | None = None
    label_suffix: str | None = None  # what a label's name adds to its image's; None: told from the names
    channels: tuple[str, ...] = ()  # endings of the images' names; empty: one file a case
    patient: str | None = None  # regular expression that finds the patient in a case id

    def recognises(self, source: Path) -> bool:
        if any(_pair(source, part) is not None for part in ("", "train")):
            return True
        stems = {stem(path) for path in list_files(source) if is_image(path)}
        return any(one + suffix in stems for one in stems for suffix in _SUFFIXES)

    def find(self, source: Path) -> Found:
        cases: list[Case] = []
        unmatched: list[str] = []
        places, notes = _places(source, self)
        for place in places:
            found = _pair_up(source, place, self)
            cases += found.cases
            unmatched += found.unmatched
            notes += found.notes
        twice = sorted(case_id for case_id, count in Counter(case.id for case in cases).items() if count > 1)
        if twice:
            raise ManifestError(
                f"{source}: {shorten(twice, 3)} {'is' if len(twice) == 1 else 'are'} in the training and in the "
                "validation part; rename the files, so that one name stands for one image"
            )
        return Found(tuple(cases), self.channels, unmatched=tuple(unmatched), notes=notes)


@dataclass(frozen=True)
class _Place:
    """A folder of images, its folder of labels, and the fold of what lies there."""

    images: str
    labels: str
    fold: int | None = None


def _usual(source: Path, part: str, usual: Sequence[str]) -> str | None:
    """The folder below `part` that has one of the usual names, the first of them first."""
    names = {name.lower(): name for name in list_folders(source, part)} if (source / part).is_dir() else {}
    found = next((names[name] for name in usual if name in names), None)
    return f"{part}/{found}" if part and found else found


def _pair(source: Path, part: str) -> tuple[str, str] | None:
    """The folders of images and labels below `part`, where it has both."""
    image, label = _usual(source, part, IMAGE_FOLDERS), _usual(source, part, LABEL_FOLDERS)
    return (image, label) if image is not None and label is not None else None


def _places(source: Path, layout: FoldersLayout) -> tuple[list[_Place], tuple[str, ...]]:
    """Where to look, and what is left out on purpose."""
    if layout.images is None and layout.labels is None and _pair(source, "train") is not None:
        return _parts_above(source)
    image, label = _chosen(source, layout)
    used = (image.split("/")[0], label.split("/")[0])
    notes = [f"left out, neither images nor labels: folder {name}" for name in list_folders(source) if name not in used]
    if "train" in list_folders(source, image):
        places, parts = _parts_below(source, image, label)
        return places, (*notes, *parts)
    return [_Place(image, label)], tuple(notes) if image else ()


def _chosen(source: Path, layout: FoldersLayout) -> tuple[str, str]:
    """The folders of images and labels: as set, by their usual names, or the source itself for both."""
    image, label = _pair(source, "") or ("", "")
    if layout.images is not None or layout.labels is not None:
        image = layout.images or _usual(source, "", IMAGE_FOLDERS) or ""
        label = layout.labels or _usual(source, "", LABEL_FOLDERS) or ""
    for name in (image, label):
        if path_problem(name) is not None or not (source / name).is_dir():
            known = ", ".join(list_folders(source)) or "none"
            raise ManifestError(f"{source}: has no folder {name!r}; folders are: {known}")
    return image, label


def _parts_above(source: Path) -> tuple[list[_Place], tuple[str, ...]]:
    """train/images and val/images."""
    places, rest = [], []
    for part in list_folders(source):
        pair = _pair(source, part) if part in ("train", *_VALIDATION) else None
        if pair is None:
            rest.append(part)
        else:
            places.append(_Place(*pair, fold=_fold(part)))
    return places, (f"left out, folders: {', '.join(rest)}",) if rest else ()


def _parts_below(source: Path, image: str, label: str) -> tuple[list[_Place], tuple[str, ...]]:
    """images/train and images/val."""
    places, notes = [], []
    for part in list_folders(source, image):
        if part not in ("train", *_VALIDATION):
            notes.append(f"left out, {image}/{part}: give it a manifest of its own")
        elif not (source / label / part).is_dir():
            raise ManifestError(f"{source}: has {image}/{part} but no {label}/{part}; add its labels")
        else:
            places.append(_Place(f"{image}/{part}", f"{label}/{part}", _fold(part)))
    return places, tuple(notes)


def _fold(part: str) -> int | None:
    """Fold 0 is what the data's makers validate on; the rest is in no fold, so that it is always trained on."""
    return 0 if part in _VALIDATION else None


def _pair_up(source: Path, place: _Place, layout: FoldersLayout) -> Found:
    """The cases of one place: images by case and channel, then each case's label."""
    image_files, notes = left_out(list_files(source, place.images))
    label_files = image_files
    if place.labels != place.images:
        label_files, label_notes = left_out(list_files(source, place.labels))
        notes += label_notes
    else:
        suffix = layout.label_suffix or _usual_suffix(source, image_files)
        image_files = [path for path in image_files if not stem(path).endswith(suffix)]
        label_files = [path for path in label_files if stem(path).endswith(suffix)]
    unmatched: list[str] = []
    images = _by_case(image_files, layout.channels, unmatched)
    claims = _claims(source, images, label_files, layout)
    cases, used = [], set()
    for case_id, files in images.items():
        missing = [name for name in layout.channels if name not in files]
        unmatched += [f"case {case_id} has no file of channel {name}" for name in missing]
        label = claims.get(case_id)
        if label is None:
            unmatched.append(f"{next(iter(files.values()))} has no label")
            continue
        used.add(label)
        if not missing:
            paths = tuple(files[name] for name in layout.channels or ("",))
            cases.append(Case(case_id, patient_of(case_id, layout.patient), place.fold, paths, label))
    rest = [path for path in label_files if path not in used]
    known = {stem(path) for path in image_files} | images.keys()
    others = [path for path in rest if layout.label_suffix and _is_other_kind(stem(path), known, layout.label_suffix)]
    unmatched += [f"{path} has no image" for path in rest if path not in set(others)]
    notes += (f"left out, labels of another suffix: {shorten(others, 3)}",) if others else ()
    return Found(tuple(cases), unmatched=tuple(unmatched), notes=notes)


def _by_case(files: Sequence[str], channels: Sequence[str], unmatched: list[str]) -> dict[str, dict[str, str]]:
    """Case -> channel ("" where there is one file a case) -> path; what fits nowhere is added to `unmatched`."""
    images: dict[str, dict[str, str]] = defaultdict(dict)
    for path in files:
        name = stem(path)
        channel = next((one for one in channels if name.endswith(tuple(f"{sep}{one}" for sep in _SEPARATORS))), "")
        if channels and not channel:
            unmatched.append(f"{path} ends in no channel ({', '.join(channels)})")
            continue
        case_id = name[: -len(channel) - 1] if channel else name
        other = images[case_id].setdefault(channel, path)
        if other != path:
            unmatched.append(f"{path} has the same name as {other}")
    return dict(sorted(images.items()))


def _claims(
    source: Path, images: Mapping[str, Mapping[str, str]], labels: Sequence[str], layout: FoldersLayout
) -> dict[str, str]:
    """Case -> its label: the same name as the case or its first channel, with one suffix for all."""
    first = layout.channels[0] if layout.channels else ""
    bases = {base: case_id for case_id, files in images.items() for base in (case_id, stem(files.get(first, case_id)))}
    suffixes: dict[str, dict[str, str]] = defaultdict(dict)
    for path in labels:
        name = stem(path)
        base = _longest_beginning(name, bases)
        if base is not None:
            suffixes[name[len(base) :]].setdefault(bases[base], path)
    if layout.label_suffix is not None:
        return suffixes.get(layout.label_suffix, {})
    if "" in suffixes:
        return suffixes[""]
    usual = {suffix: found for suffix, found in suffixes.items() if suffix[:1] in (*_SEPARATORS, " ")}
    if len(usual) > 1:
        raise ManifestError(
            f"{source}: labels add several suffixes to their images' names: {shorten(sorted(usual))}; choose one with "
            f"--set label_suffix={sorted(usual)[0]}"
        )
    return next(iter(usual.values()), {})


def _longest_beginning(name: str, known: Collection[str]) -> str | None:
    """The longest of the known names that a name begins with."""
    return next((name[:length] for length in range(len(name), 0, -1) if name[:length] in known), None)


def _is_other_kind(name: str, known: Collection[str], suffix: str) -> bool:
    """Whether a label that no case claims is one of another suffix, or of another channel, and not a stray."""
    if name.endswith(suffix):
        return name[: -len(suffix)] in known
    base = _longest_beginning(name, known)
    return base is not None and name[len(base) : len(base) + 1] in _SEPARATORS


def _usual_suffix(source: Path, files: Sequence[str]) -> str:
    """The suffix that tells labels from images in one folder."""
    stems = {stem(path) for path in files if not is_junk(path)}
    for suffix in _SUFFIXES:
        if any(name.endswith(suffix) and name[: -len(suffix)] in stems for name in stems):
            return suffix
    raise ManifestError(
        f"{source}: has no folders of images and labels, and no file adds a usual suffix ({', '.join(_SUFFIXES[:3])}) "
        "to another's name; give --set label_suffix=..., or --set images=... and --set labels=..."
    )
