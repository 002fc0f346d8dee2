"""cases.csv, read so strictly that a slip of the keyboard is found before any image is opened."""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from medseg.data.dataset import Case, DatasetInfo, annotated_problem, case_id_problem, path_problem
from medseg.errors import ManifestError

_DIGEST = re.compile(r"[0-9a-f]{64}")
_FIXED = ("case_id", "patient_id", "fold")
_LABEL = ("label", "label_sha256")
_ANNOTATED, _BETWEEN = "annotated", ";"  # the labels that were looked for, where they are not all
_NOT_TYPED = 0.8  # a column nearer than this to a known name is taken for a slip


def read_table(path: Path, dataset: DatasetInfo) -> tuple[Case, ...]:
    """The cases that a cases.csv lists. Raises ManifestError that names line, value and fix, several at once."""
    return parse_table(_text(path), path, dataset)


def parse_table(text: str, path: Path, dataset: DatasetInfo) -> tuple[Case, ...]:
    """The cases in the text of a cases.csv; `path` is what messages call it. Raises ManifestError as `read_table`."""
    rows = _rows(text, path)
    if not rows:
        raise ManifestError(f"{path}: is empty; its first line must be {','.join(header(dataset.channels))}")
    images = _image_columns(path, rows[0][1], dataset)
    if len(rows) == 1:
        raise ManifestError(f"{path}: has a header and no case; add a row for each, or run `medseg manifest build`")
    problems: list[str] = []
    cases: list[Case] = []
    lines: dict[str, int] = {}
    for line, cells in rows[1:]:
        if len(cells) != len(rows[0][1]):
            problems.append(f"line {line} has {len(cells)} cells, the header {len(rows[0][1])}; correct its commas")
            continue
        row = dict(zip(rows[0][1], cells, strict=True))
        found = _row_problems(row, images, dataset)
        if row["case_id"] in lines:
            found.append(f"case_id {row['case_id']!r} is on line {lines[row['case_id']]} too; each needs its own")
        lines.setdefault(row["case_id"], line)
        problems += [f"line {line}: {problem}" for problem in found]
        if not found:
            cases.append(_case(row, images))
    problems += _shared_patients(cases, lines)
    if problems:
        more = f" (and {len(problems) - 3} more)" if len(problems) > 3 else ""
        raise ManifestError(f"{path}: " + "; ".join(problems[:3]) + more)
    return tuple(cases)


def table_text(dataset: DatasetInfo, cases: Sequence[Case]) -> str:
    """What cases.csv holds for these cases, sorted by id."""
    together = all(len(case.images) == 1 for case in cases)
    images = image_columns(("all",) if together else dataset.channels)
    partly = [_ANNOTATED] if any(case.annotated is not None for case in cases) else []
    extra = [*partly, *sorted({name for case in cases for name in case.columns})]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*_FIXED, *images, "label", *[f"{name}_sha256" for name in images], "label_sha256", *extra])
    for case in sorted(cases, key=lambda case: case.id):
        fold = "" if case.fold is None else str(case.fold)
        digests = [digest or "" for digest in (*case.image_digests, case.label_digest)]
        cells = {**case.columns, _ANNOTATED: _BETWEEN.join(case.annotated or ())}
        further = [cells.get(name, "") for name in extra]
        writer.writerow([case.id, case.patient, fold, *case.images, case.label or "", *digests, *further])
    return text.getvalue()


def image_columns(channels: Sequence[str]) -> list[str]:
    """The columns of image paths: `image`, or one for each of several channels."""
    return ["image"] if len(channels) == 1 else [f"image_{channel}" for channel in channels]


def header(channels: Sequence[str]) -> list[str]:
    """The columns that medseg itself writes."""
    images = image_columns(channels)
    return [*_FIXED, *images, "label", *[f"{name}_sha256" for name in images], "label_sha256"]


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror}); give the folder of a manifest") from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: is not text in UTF-8 (byte {error.start}); save it as UTF-8") from error


def _rows(text: str, path: Path) -> list[tuple[int, list[str]]]:
    """The non-blank rows with their line numbers."""
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ManifestError(f"{path}: line {line} holds a NUL byte, so it is no text; restore the file")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                rows.append((reader.line_num, cells))
    except csv.Error as error:
        raise ManifestError(f"{path}: line {reader.line_num} is not valid CSV ({error}); correct its quotes") from error
    return rows


def _image_columns(path: Path, columns: Sequence[str], dataset: DatasetInfo) -> list[str]:
    """The image columns in use, after a check of the whole header."""
    twice = sorted({name for name in columns if columns.count(name) > 1})
    if twice:
        raise ManifestError(f"{path}: line 1: column {twice[0]!r} is given twice; keep one")
    per_channel = [f"image_{channel}" for channel in dataset.channels]
    images = ["image"] if "image" in columns else per_channel
    known = [*_FIXED, *images, *_LABEL, _ANNOTATED, *[f"{name}_sha256" for name in images]]
    missing = [name for name in (*_FIXED, *images, "label") if name not in columns]
    for name in (name for name in columns if name not in known):
        near = difflib.get_close_matches(name.strip().lower(), missing or known, n=1, cutoff=_NOT_TYPED)
        if near or name.startswith("image_") or name != name.strip() or not name:
            meant = f"did you mean {near[0]!r}?" if near else f"columns here are {', '.join(known)}"
            raise ManifestError(f"{path}: line 1: unknown column {name!r}; {meant}")
    if missing:
        raise ManifestError(
            f"{path}: line 1: column {missing[0]!r} is missing; the header must be {','.join(header(dataset.channels))}"
        )
    return images


def _row_problems(row: Mapping[str, str], images: Sequence[str], dataset: DatasetInfo) -> list[str]:
    problems = []
    for name in (*_FIXED, *images, *_LABEL):
        value = row.get(name, "")
        if value != value.strip():
            problems.append(f"{name} {value!r} has blanks around it; remove them")
    for name in ("case_id", "patient_id", *images):
        if not row[name].strip():
            problems.append(f"{name} is empty; fill it in, or remove the row")
    if row["case_id"].strip() and (problem := case_id_problem(row["case_id"])):
        problems.append(f"case_id {problem}")
    if row["fold"] and not row["fold"].isdecimal():
        problems.append(f"fold {row['fold']!r} is not a whole number from 0; correct it, or leave it empty")
    for name in (*images, "label"):
        if row[name] and (problem := path_problem(row[name])):
            problems.append(f"{name} {problem}")
    if (named := _annotated(row)) and (problem := annotated_problem(named, dataset.labels)):
        problems.append(f"{_ANNOTATED} {problem}")
    elif named and not row["label"]:
        problems.append(f"{_ANNOTATED} {row[_ANNOTATED]!r} is of a case without a label; give one, or leave it empty")
    for name in (*[f"{image}_sha256" for image in images], "label_sha256"):
        if row.get(name) and not _DIGEST.fullmatch(row[name]):
            problems.append(f"{name} {row[name]!r} is no SHA-256 (64 hexadecimal digits); leave it empty to skip it")
    return problems


def _case(row: Mapping[str, str], images: Sequence[str]) -> Case:
    known = {*_FIXED, *images, *_LABEL, _ANNOTATED, *(f"{name}_sha256" for name in images)}
    return Case(
        id=row["case_id"],
        patient=row["patient_id"],
        fold=int(row["fold"]) if row["fold"] else None,
        images=tuple(row[name] for name in images),
        label=row["label"] or None,
        image_digests=tuple(row.get(f"{name}_sha256") or None for name in images),
        label_digest=row.get("label_sha256") or None,
        columns={name: value for name, value in row.items() if value and name not in known},
        annotated=_annotated(row),
    )


def _annotated(row: Mapping[str, str]) -> tuple[str, ...] | None:
    """The names in the cell, `liver;spleen`; None where it is empty or absent."""
    cell = row.get(_ANNOTATED, "")
    return tuple(name.strip() for name in cell.split(_BETWEEN)) if cell.strip() else None


def _shared_patients(cases: Sequence[Case], lines: Mapping[str, int]) -> list[str]:
    """Patients whose labelled cases are in more than one fold: what is learned would be scored on the same person."""
    first: dict[str, Case] = {}
    problems = []
    for case in cases:
        if case.label is None:
            continue
        other = first.setdefault(case.patient, case)
        if other.fold != case.fold:
            folds = [f"fold {one.fold}" if one.fold is not None else "no fold" for one in (other, case)]
            problems.append(
                f"line {lines[case.id]}: patient {case.patient!r} is in {folds[1]} (case {case.id}), but in {folds[0]} "
                f"on line {lines[other.id]} (case {other.id}); keep a patient's cases in one fold"
            )
    return problems
