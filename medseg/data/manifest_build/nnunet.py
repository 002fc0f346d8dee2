"""The raw layout of nnU-Net: imagesTr/<case>_0000.nii.gz, labelsTr/<case>.nii.gz and its dataset.json."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from medseg.data.dataset import Case
from medseg.data.file_names import list_files, stem
from medseg.data.manifest_build.base import Found, LayoutConfig, left_out, patient_of
from medseg.data.manifest_build.msd import channel_name
from medseg.data.msd import INDEX, read_json
from medseg.errors import ManifestError

_NUMBERED = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")


class NnunetLayout(LayoutConfig):
    """One file a channel, numbered; labels by name, regions as lists of values, an `ignore` label."""

    name: Literal["nnunet"] = "nnunet"
    patient: str | None = None  # regular expression that finds the patient in a case id

    def recognises(self, source: Path) -> bool:
        folder = source / "imagesTr"
        return (
            (source / INDEX).is_file()
            and folder.is_dir()
            and any(_NUMBERED.fullmatch(stem(path.name)) for path in folder.iterdir())
        )

    def find(self, source: Path) -> Found:
        content = read_json(source / INDEX)
        channels = _channels(source / INDEX, content)
        for name in ("imagesTr", "labelsTr"):
            if not (source / name).is_dir():
                raise ManifestError(f"{source}: has no folder {name}, so it is no raw data set of nnU-Net")
        files, image_notes = left_out(list_files(source, "imagesTr"))
        label_files, label_notes = left_out(list_files(source, "labelsTr"))
        images: dict[str, dict[int, str]] = defaultdict(dict)
        unmatched = []
        for path in files:
            match = _NUMBERED.fullmatch(stem(path))
            if match is None or int(match["channel"]) >= len(channels):
                unmatched.append(f"{path} is not numbered from _0000 to _{len(channels) - 1:04d}")
            else:
                images[match["case"]][int(match["channel"])] = path
        labels = {stem(path): path for path in label_files}
        unmatched += [f"{path} has no image" for case_id, path in labels.items() if case_id not in images]
        cases = []
        for case_id, numbered in sorted(images.items()):
            missing = [name for number, name in enumerate(channels) if number not in numbered]
            unmatched += [f"case {case_id} has no file of channel {name}" for name in missing]
            if case_id not in labels:
                unmatched.append(f"{numbered[min(numbered)]} has no label in labelsTr")
            elif not missing:
                paths = tuple(numbered[number] for number in range(len(channels)))
                cases.append(Case(case_id, patient_of(case_id, self.patient), None, paths, labels[case_id]))
        names, regions, ignore = _labels(source / INDEX, content.get("labels"))
        tests = list_files(source, "imagesTs") if (source / "imagesTs").is_dir() else []
        notes = (f"left out, test images: {len(tests)} files in imagesTs",) if tests else ()
        about = {key: str(content[key]) for key in ("description", "licence") if content.get(key)}
        return Found(
            tuple(cases),
            channels,
            names,
            regions,
            ignore,
            tuple(unmatched),
            (*image_notes, *label_notes, *notes),
            about,
        )


def _channels(where: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    """Version 2 says `channel_names`, version 1 `modality`."""
    named = content.get("channel_names", content.get("modality"))
    if not isinstance(named, Mapping) or sorted(map(str, named)) != sorted(str(number) for number in range(len(named))):
        raise ManifestError(f"{where}: 'channel_names' is {named!r}, not an object that numbers the channels from 0")
    return tuple(channel_name(str(named[str(number)])) for number in range(len(named)))


def _labels(where: Path, labels: object) -> tuple[dict[str, int], dict[str, tuple[int, ...]], int | None]:
    """Names to values, regions to the values they unite, and the value to be ignored."""
    if not isinstance(labels, Mapping):
        raise ManifestError(f"{where}: 'labels' is {labels!r}, not an object of names to values; correct it")
    flipped = all(str(key).isdecimal() for key in labels)  # version 1: values to names
    named = {str(value): int(key) for key, value in labels.items()} if flipped else dict(labels)
    values: dict[str, int] = {}
    regions: dict[str, tuple[int, ...]] = {}
    for name, value in named.items():
        united = value if isinstance(value, list) else [value]
        if not united or not all(isinstance(one, int) and one >= 0 for one in united):
            raise ManifestError(f"{where}: labels: {name!r} is {value!r}, not a whole number or a list of them")
        if isinstance(value, list) and len(value) > 1:
            regions[name] = tuple(value)
        else:
            values[name] = united[0]
    ignore = values.pop("ignore", None)
    return {name: value for name, value in values.items() if value != 0}, regions, ignore
