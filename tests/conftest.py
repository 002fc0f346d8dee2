"""Fixtures that every test may ask for: the real data sets, where they are present."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

DATA_VARIABLE = "MEDSEG_TEST_DATA"


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data sets; the test is skipped where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get(DATA_VARIABLE, default))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set {DATA_VARIABLE}")
    return folder
