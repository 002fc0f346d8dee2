"""On what: the list of cases that an experiment learns from and is scored on, with an identity of its own."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from medseg.config import read_yaml, suggestion, validate
from medseg.data.case_table import parse_table, read_table, table_text
from medseg.data.dataset import Case, DatasetInfo, Download, case_id_problem, inside, path_problem
from medseg.data.folds import assign_folds
from medseg.data.msd import read_index
from medseg.errors import ConfigError, ManifestError, WriteError
from medseg.io.atomic import atomic_write_text

__all__ = [
    "Case",
    "DatasetInfo",
    "Download",
    "Manifest",
    "inside",
    "read_dataset",
    "read_manifest",
    "write_manifest",
]

DATASET, CASES = "dataset.yaml", "cases.csv"


@dataclass(frozen=True)
class Manifest:
    """A data set's description and its cases, sorted by id."""

    dataset: DatasetInfo
    cases: tuple[Case, ...]
    folder: Path

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds that cases are in, ascending."""
        return tuple(sorted({case.fold for case in self.cases if case.fold is not None}))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what decides a result: channels, labels, cases with patient, fold and content.

        A file counts by the digest of its voxels and affine, or by its path where the manifest has no digest, so
        moved and re-compressed files keep the manifest's identity.
        """
        dataset = self.dataset.model_dump(mode="json", include={"name", "version", "spatial_dims", "channels"})
        labels = self.dataset.labels.model_dump(mode="json")
        archive = self.dataset.download.md5 if self.dataset.download is not None else None
        cases = [
            [case.id, case.patient, case.fold, case.label is not None, [digest or path for path, digest in case.files]]
            + ([] if case.annotated is None else [sorted(case.annotated)])
            for case in sorted(self.cases, key=lambda case: case.id)
        ]
        content: list[Any] = [dataset, labels, archive, cases]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def case(self, case_id: str) -> Case:
        """The case of that id. Raises ManifestError with the nearest ids."""
        for case in self.cases:
            if case.id == case_id:
                return case
        known = [case.id for case in self.cases]
        raise ManifestError(f"{self.folder}: no case is called {case_id!r}{_nearest(case_id, known)}")

    def split(self, fold: int | None) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
        """Labelled cases to train on and to validate on. Fold None trains on all and validates on none.

        Cases in no fold are always trained on; cases without a label are in neither part.
        """
        labelled = [case for case in self.cases if case.label is not None]
        if fold is not None and fold not in self.folds:
            known = ", ".join(map(str, self.folds)) or "none"
            raise ManifestError(f"{self.folder}: fold {fold} is not in the manifest; folds are: {known}")
        training = tuple(case for case in labelled if fold is None or case.fold != fold)
        validation = tuple(case for case in labelled if fold is not None and case.fold == fold)
        if not training or (fold is not None and not validation):
            part = "train" if not training else "validate"
            raise ManifestError(f"{self.folder}: fold {fold} leaves no labelled case to {part} on; add cases or folds")
        return training, validation

    def split_by(self, column: str, value: str) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
        """Labelled cases to train on, and those to validate on, whose column of cases.csv has a value.

        So a scanner, site or protocol can be left out that a model has never seen. A patient may be on one side only.
        """
        labelled = [case for case in self.cases if case.label is not None]
        columns = sorted({name for case in labelled for name in case.columns})
        if column not in columns:
            raise ManifestError(f"{self.folder}: cases.csv has no column {column!r}{suggestion(column, columns)}")
        validation = tuple(case for case in labelled if case.columns.get(column) == value)
        training = tuple(case for case in labelled if case.columns.get(column) != value)
        if not validation or not training:
            known = sorted({case.columns.get(column, "") for case in labelled})
            part = "train" if validation else "validate"
            raise ManifestError(
                f"{self.folder}: {column}={value!r} leaves no labelled case to {part} on; values: {', '.join(known)}"
            )
        both = {case.patient for case in training} & {case.patient for case in validation}
        if both:
            cases = ", ".join(case.id for case in labelled if case.patient in both)
            raise ManifestError(
                f"{self.folder}: {column}={value!r} parts cases of one patient ({cases}); take them out of cases.csv"
            )
        return training, validation


def read_dataset(folder: Path) -> DatasetInfo:
    """The dataset.yaml of a manifest folder."""
    if not folder.is_dir():
        wrong = "is no folder" if folder.exists() else "does not exist"
        raise ManifestError(f"manifest {folder} {wrong}; give the folder that holds {DATASET}")
    if not (folder / DATASET).is_file():
        raise ManifestError(f"{folder}: holds no {DATASET}, so it is no manifest; run `medseg manifest build`")
    content = read_yaml(folder / DATASET)
    version = content.get("schema_version", 1)
    if version != 1:
        raise ConfigError(
            f"{folder / DATASET}: schema_version {version!r} is not known; this medseg reads 1, update medseg"
        )
    return validate(DatasetInfo, content, str(folder / DATASET))


def read_manifest(folder: Path, data_root: Path | None = None) -> Manifest:
    """The manifest in a folder. With `layout: msd` the cases are listed by the data, so it asks for the data root.

    Raises ConfigError for a wrong dataset.yaml and ManifestError for wrong cases.
    """
    dataset = read_dataset(folder)
    cases = _cases_of_msd(folder, data_root) if dataset.layout == "msd" else read_table(folder / CASES, dataset)
    return Manifest(dataset, tuple(sorted(cases, key=lambda case: case.id)), folder)


def write_manifest(manifest: Manifest, folder: Path | None = None, force: bool = False) -> Path:
    """Writes dataset.yaml and cases.csv, each whole or not at all; returns the folder.

    Raises ManifestError where the cases could not be read again, ConfigError where the folder holds a manifest
    already, unless `force`.
    """
    folder = manifest.folder if folder is None else folder
    if not force:
        refuse_overwriting(folder)
    table = table_text(manifest.dataset, manifest.cases)
    if manifest.dataset.layout == "table":
        try:
            parse_table(table, folder / CASES, manifest.dataset)
        except ManifestError as error:
            raise ManifestError(f"nothing is written, the manifest could not be read: {error}") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WriteError(f"{folder}: cannot be made ({error.strerror}); choose another folder") from error
    if manifest.dataset.layout == "table":
        atomic_write_text(folder / CASES, table)
    content = manifest.dataset.model_dump(mode="json", exclude_defaults=True)
    text = yaml.safe_dump({"schema_version": 1, **content}, sort_keys=False, allow_unicode=True, width=110)
    atomic_write_text(folder / DATASET, text)
    return folder


def refuse_overwriting(folder: Path) -> None:
    """Raises ConfigError where a folder holds a manifest, which somebody may have completed by hand."""
    held = [name for name in (DATASET, CASES) if (folder / name).exists()]
    if held:
        raise ConfigError(
            f"{folder}: holds {' and '.join(held)} already; choose another folder with --output, or replace the "
            "manifest with --force"
        )


def _cases_of_msd(folder: Path, data_root: Path | None) -> tuple[Case, ...]:
    """The training cases of an official task, in the folds of nnU-Net: one case a patient, as far as a task says."""
    if data_root is None:
        raise ManifestError(f"{folder}: its cases are listed by the data's own dataset.json; give --data-root")
    index = read_index(data_root)
    for case_id, image, label in index.cases:
        problem = case_id_problem(case_id) or path_problem(image) or path_problem(label)
        if problem is not None:
            raise ManifestError(f"{data_root / 'dataset.json'}: training: {problem}")
    folds = assign_folds(case_id for case_id, _, _ in index.cases)
    return tuple(Case(case_id, case_id, folds[case_id], (image,), label) for case_id, image, label in index.cases)


def _nearest(wrong: str, known: list[str]) -> str:
    """A suggestion that does not print hundreds of ids."""
    if len(known) <= 12:
        return suggestion(wrong, known)
    return suggestion(wrong, known).split(" known: ")[0].rstrip(";") + f"; it lists {len(known)} cases in cases.csv"
