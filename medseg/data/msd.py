"""The list of cases that a Medical Segmentation Decathlon folder carries, dataset.json."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from medseg.data.file_names import stem
from medseg.errors import ManifestError

INDEX = "dataset.json"


@dataclass(frozen=True)
class MsdIndex:
    """dataset.json as read: `cases` are (case id, image path, label path), `tests` images without a label."""

    content: Mapping[str, Any]
    cases: tuple[tuple[str, str, str], ...]
    tests: tuple[str, ...]


def read_index(data_root: Path) -> MsdIndex:
    """The index of an MSD folder. Raises ManifestError where it is absent, no JSON or lists no training case."""
    content = read_json(data_root / INDEX)
    training = content.get("training")
    if not isinstance(training, list) or not training:
        raise ManifestError(f"{data_root / INDEX}: key 'training' lists no case; is this the folder of an MSD task?")
    cases = tuple(sorted(_entry(data_root / INDEX, position, entry) for position, entry in enumerate(training)))
    twice = sorted(case_id for case_id, count in Counter(case_id for case_id, _, _ in cases).items() if count > 1)
    if twice:
        raise ManifestError(f"{data_root / INDEX}: training lists {twice[0]!r} twice; remove one entry")
    tests = content.get("test", [])
    listed = tests if isinstance(tests, list) else []
    found = [str(test.get("image", "") if isinstance(test, dict) else test) for test in listed]
    return MsdIndex(content, cases, tuple(str(PurePosixPath(path)) for path in found))


def read_json(path: Path) -> dict[str, Any]:
    """The object that a JSON file holds. Raises ManifestError where it is absent, unreadable or another thing."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror}); give the folder that holds it") from error
    except (ValueError, RecursionError) as error:
        raise ManifestError(f"{path}: is not valid JSON ({error}); correct it") from error
    if not isinstance(content, dict):
        raise ManifestError(f"{path}: holds {type(content).__name__}, not an object with keys; correct it")
    return content


def _entry(where: Path, position: int, entry: object) -> tuple[str, str, str]:
    if not isinstance(entry, dict) or not {"image", "label"} <= entry.keys():
        raise ManifestError(f"{where}: training[{position}] is {entry!r}, not an object with 'image' and 'label'")
    image, label = (str(PurePosixPath(str(entry[key]))) for key in ("image", "label"))
    return stem(image), image, label
