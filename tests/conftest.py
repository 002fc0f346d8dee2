"""Fixtures that every test may ask for: the real data sets, where they are present."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipelines.process import SURROUNDINGS

for name, value in SURROUNDINGS.items():  # as the command does, before torch, MONAI and MLflow are imported
    os.environ.setdefault(name, value)

DATA_VARIABLE = "MEDSEG_TEST_DATA"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; the test is skipped where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get(DATA_VARIABLE, default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set {DATA_VARIABLE}")
    return folder
