"""Fixtures that every test may ask for: the real data sets, where they are present."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.process import SURROUNDINGS

for name, value in SURROUNDINGS.items():  # as the command does, before torch, MONAI and MLflow are imported
    os.environ.setdefault(name, value)

DATA_VARIABLE = "MEDSEG_TEST_DATA"


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Prepared cases go to a folder of this session, for the programs that tests start, too."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("MEDSEG_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; the test is skipped where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get(DATA_VARIABLE, default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set {DATA_VARIABLE}")
    return folder
