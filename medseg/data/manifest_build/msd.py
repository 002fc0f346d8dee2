"""The layout of the Medical Segmentation Decathlon: imagesTr, labelsTr and a dataset.json that lists them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from medseg.data.dataset import Case, inside
from medseg.data.file_names import is_image, list_files, stem
from medseg.data.manifest_build.base import Found, LayoutConfig, left_out, patient_of
from medseg.data.msd import INDEX, read_index
from medseg.errors import ManifestError


class MsdLayout(LayoutConfig):
    """dataset.json with a `training` list; several modalities lie in one 4D file."""

    name: Literal["msd"] = "msd"
    patient: str | None = None  # regular expression that finds the patient in a case id

    def recognises(self, source: Path) -> bool:
        return (source / INDEX).is_file() and '"training"' in (source / INDEX).read_text(errors="replace")

    def find(self, source: Path) -> Found:
        index = read_index(source)
        cases, unmatched = [], []
        for case_id, image, label in index.cases:
            absent = [path for path in (image, label) if not inside(source, path, INDEX).is_file()]
            unmatched += [f"{path} is listed in {INDEX} and absent" for path in absent]
            if not absent:
                cases.append(Case(case_id, patient_of(case_id, self.patient), None, (image,), label))
        folders = [name for name in ("imagesTr", "labelsTr") if (source / name).is_dir()]
        files, notes = left_out(path for name in folders for path in list_files(source, name))
        listed = {path for _, image, label in index.cases for path in (image, label)}
        unmatched += [f"{path} is not listed in {INDEX}" for path in files if path not in listed]
        tests = [path for path in index.tests if is_image(path)]
        if tests:
            notes += (f"left out, {len(tests)} test images without label: {stem(tests[0])} ...",)
        return Found(
            cases=tuple(cases),
            channels=_channels(source / INDEX, index.content),
            label_names=label_names(source / INDEX, index.content.get("labels", {})),
            unmatched=tuple(unmatched),
            notes=notes,
            about=_about(index.content),
        )


def label_names(where: Path, labels: object) -> dict[str, int]:
    """`{"0": "background", "1": "Anterior"}` as names to values, background left out."""
    if not isinstance(labels, Mapping):
        raise ManifestError(f"{where}: 'labels' is {labels!r}, not an object of values to names; correct it")
    for value in labels:
        if not str(value).isdecimal():
            raise ManifestError(f"{where}: labels: {value!r} is no label value (a whole number); correct it")
    return {str(name): int(value) for value, name in labels.items() if int(value) != 0}


def _channels(where: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    """The modalities in order, as names that a column can carry."""
    modality = content.get("modality", {})
    if not isinstance(modality, Mapping) or not all(str(number).isdecimal() for number in modality):
        raise ManifestError(f"{where}: 'modality' is {modality!r}, not an object that numbers the channels from 0")
    ordered = sorted(modality.items(), key=lambda item: int(item[0]))
    return tuple(channel_name(str(name)) for _, name in ordered)


def channel_name(name: str) -> str:
    """A channel's name in the characters that a column of cases.csv can carry."""
    kept = "".join(letter if letter.isascii() and (letter.isalnum() or letter in "+.-") else "_" for letter in name)
    return "_".join(part for part in kept.split("_") if part).lstrip("+.-") or "image"


def _about(content: Mapping[str, Any]) -> dict[str, str]:
    named = {"licence": ("licence", "license"), "source": ("reference",), "description": ("description",)}
    found = {key: str(content[name]) for key, names in named.items() for name in names if content.get(name)}
    version = content.get("release", content.get("relase"))  # the official files are spelt so
    return {**found, **({"version": str(version)} if version else {})}
