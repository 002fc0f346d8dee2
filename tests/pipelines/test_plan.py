"""A plan for real data of three kinds trains as it was written."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from medseg.errors import ConfigError
from medseg.experiment import read_experiment
from pipelines.command import app
from pipelines.plan import memory_bytes, plan
from pipelines.train import train


@pytest.fixture(scope="module")
def two_channels(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MR and PET of four patients on grids of their own, with the tumour on the MR's."""
    folder = tmp_path_factory.mktemp("sts")
    for patient in sorted((real_data / "sts_petmr_tumour" / "nifti").iterdir())[:4]:
        goal = folder / "files" / patient.name
        goal.mkdir(parents=True)
        for kind, name in (("MR_T1_image", "MR"), ("PET_image", "PET"), ("MR_T1_mask", "tumour")):
            shutil.copy(patient / f"{kind}.nii.gz", goal / f"{name}.nii.gz")
    command = ["manifest", "build", str(folder / "files"), "--output", str(folder / "sts"), "--folds", "2"]
    done = CliRunner().invoke(app, [*command, "--set", "channels=[MR,PET]", "--set", "label=tumour"])
    assert done.exit_code == 0, done.output
    return folder


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.parametrize("name", ["hippocampus", "montgomery_lungs", "two_channels"])
def test_a_plan_trains_as_it_was_written(name: str, real_data: Path, tmp_path: Path, request: Any) -> None:
    folder = {"hippocampus": "hippocampus", "montgomery_lungs": "cxr_montgomery"}
    if name == "two_channels":
        home = request.getfixturevalue("two_channels")
        manifest, root = str(home / "sts"), home / "files"
    else:
        manifest, root = name, real_data / folder[name]
    answer = plan(manifest, root, tmp_path / "planned.yaml", minutes=60, memory="4GB", device="cpu")
    written = read_experiment(answer["plan"])
    assert written.model_dump(mode="json") == answer["experiment"]
    text = answer["plan"].read_text()
    assert "measured on this machine" in " ".join(line.lstrip("# ") for line in text.splitlines())
    short = ["training.max_minutes=null", "training.total_steps=2", "tracking.name=none"]
    if name == "hippocampus":
        assert written.patch.size == (40, 56, 40)
        assert written.preprocessing.spacing_mm is None
    trained = train(str(answer["plan"]), short, root, tmp_path / "runs", "cpu")
    assert trained["steps"] == 2


@pytest.mark.parametrize(
    ("text", "found"), [("24GB", 24 * 10**9), ("512 MiB", 2**29), ("1.5 gb", 15 * 10**8), ("1000", 1000)]
)
def test_memory_is_read_as_people_write_it(text: str, found: int) -> None:
    assert memory_bytes(text) == found


@pytest.mark.parametrize("text", ["lots", "24 parsecs", "-1GB", "1.2.3GB", "0GB", ""])
def test_memory_that_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--memory"):
        memory_bytes(text)
