"""README's commands: each one that it shows is run here, shortened where it would take minutes."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).resolve().parents[2]
FEW_STEPS = ["training.max_minutes=null", "training.total_steps=2", "network.channels=[4,8]", "training.workers=0"]
SHORT = [part for setting in FEW_STEPS for part in ("--set", setting)]


def shown() -> list[list[str]]:
    """The command lines of README's blocks after the first, without comments; the YAML block has none."""
    blocks = (REPOSITORY / "README.md").read_text(encoding="utf-8").split("```")[3::2]
    lines = [line for block in blocks if block.startswith("\n") for line in block.splitlines() if line.strip()]
    return [shlex.split(line, comments=True) for line in lines]


def own_experiment() -> dict:
    """README's YAML example."""
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8").split("```yaml\n")[1].split("```")[0]
    return dict(yaml.safe_load(text))


@pytest.fixture(scope="module")
def workshop(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which README's names mean something: DATA, STUDY, FOLDER, and the configs."""
    home = tmp_path_factory.mktemp("readme")
    (home / "DATA").symlink_to(real_data)
    (home / "STUDY").symlink_to(sorted((real_data / "dicom_hippocampus").glob("*tudy1*"))[0])
    shutil.copytree(REPOSITORY / "configs", home / "configs")
    for kind in ("images", "labels"):
        (home / "FOLDER" / kind).mkdir(parents=True)
        for number in ("001", "003", "004", "006", "007"):
            name = f"hippocampus_{number}.nii.gz"
            shutil.copy(real_data / "hippocampus" / kind / name, home / "FOLDER" / kind / name)
    (home / "my_experiment.yaml").write_text(yaml.safe_dump(own_experiment()))
    return home


def medseg(arguments: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from pipelines.command import main; main()", *arguments]
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
@pytest.mark.real
def test_every_command_of_readme_runs(workshop: Path) -> None:
    """In the order in which they stand, each building on what the ones before it made."""
    ran = set()
    for program, *arguments in shown():
        if program == "mlflow":
            assert arguments == ["ui", "--backend-store-uri", "sqlite:///runs/mlflow.db"]
            assert (workshop / "runs" / "mlflow.db").is_file()
            continue
        assert program == "medseg"
        runs = sorted((workshop / "runs").glob("hippocampus_unet3d-*")) if (workshop / "runs").exists() else []
        filled = [str(runs[0].relative_to(workshop)) if part == "runs/RUN" else part for part in arguments]
        medseg([*filled, *(SHORT if filled[0] in ("train", "cross-validate") else [])], workshop)
        ran.add(" ".join(filled[:2]) if filled[0] == "manifest" else filled[0])
    assert {
        "train",
        "cross-validate",
        "evaluate",
        "infer",
        "resume",
        "manifest build",
        "manifest check",
        "schema",
        "list",
    } <= ran
    made = sorted(path.name for path in (workshop / "out").iterdir())
    assert made == ["STUDY_label.nii.gz", "STUDY_seg.dcm", "inference.json"]
    assert json.loads((workshop / "experiment.schema.json").read_text())["title"] == "ExperimentConfig"


def test_readmes_experiment_is_valid(tmp_path: Path) -> None:
    from medseg.experiment import read_experiment

    path = tmp_path / "my_experiment.yaml"
    path.write_text(yaml.safe_dump(own_experiment()))
    assert read_experiment(path).training.max_minutes == 60
