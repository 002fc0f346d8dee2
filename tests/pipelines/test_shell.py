"""The command as a whole: help at once, one place for errors and exit codes, JSON that a program can read."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from medseg.errors import ConfigError, ReadError
from medseg.io.dicom.rule import SeriesRule
from pipelines import command, locations
from pipelines.command import app
from pipelines.console import Console, duration
from pipelines.listing import KINDS
from pipelines.model_use import ModelUse
from pipelines.process import STARTED_S, perform, plain

REPOSITORY = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "monai", "mlflow", "SimpleITK", "highdicom", "pandas", "scipy", "numpy.testing"}


def medseg(*arguments: str, folder: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    path = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run(
        [sys.executable, "-m", "pipelines.command", *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        env=path,
    )


VERBS = ["demo", "plan", "train", "resume", "cross-validate", "sweep", "pseudo-label", "evaluate", "infer", "manifest"]
VERBS += ["benchmark", "list", "schema", "doctor"]


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], *(["list", kind] for kind in KINDS)])
def test_help_and_lists_import_nothing_heavy_and_answer_at_once(arguments: list[str]) -> None:
    script = (
        "import sys; from pipelines.command import app\n"
        "try: app(sys.argv[1:])\n"
        "except SystemExit as done: assert not done.code, done.code\n"
        f"print('HEAVY', *sorted({HEAVY} & set(sys.modules)))"
    )
    seconds = []
    for _ in range(3):  # the best of three: the machine may be busy
        begin = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            cwd=REPOSITORY,
            check=True,
        )
        seconds.append(time.monotonic() - begin)
        if seconds[-1] < 1:
            break
    assert done.stdout.splitlines()[-1].split() == ["HEAVY"]
    assert min(seconds) < 1


def test_help_names_every_verb() -> None:
    text = medseg("--help").stdout
    assert [verb for verb in VERBS if not re.search(rf"\b{verb}\b", text)] == []


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_entry_of_a_list_has_a_description(kind: str) -> None:
    result = CliRunner().invoke(app, ["list", kind, "--json"])
    assert result.exit_code == 0
    entries = json.loads(result.stdout)["entries"]
    assert entries
    assert [entry for entry in entries if not entry["name"] or not entry["description"]] == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "networkz"], "did you mean 'networks'?"),
        (["schema", "datasets"], "did you mean 'dataset'?"),
        (["train", "hippocampus_unet3"], "is neither a path nor a shipped config"),
        (["train", "configs/absent.yaml"], "config 'configs/absent.yaml' does not exist"),
        (["train", "configs"], "is a folder"),
        (["trian"], "No such command"),
        (["train"], "Missing argument"),
        (["train", "x", "--device", "gpu"], "choose auto, cpu, cuda"),
        (["benchmark", "networks", "--device", "gpu"], "choose auto, cpu, cuda"),
        (["benchmark", "networks", "unett"], "did you mean 'unet'?"),
        (["benchmark", "losses", "--choices", "absent.yaml"], "absent.yaml: cannot be read"),
        (["infer", "model", "image.nii.gz"], "--output"),
        (["infer", "model", "--output", "out"], "Missing argument"),
    ],
)
def test_wrong_use_exits_2_and_says_why(arguments: list[str], message: str) -> None:
    done = medseg(*arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.replace("│", " ").split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_errors_under_json_are_json_on_standard_output() -> None:
    done = medseg("list", "networkz", "--json")
    assert done.returncode == 2
    assert json.loads(done.stdout)["kind"] == "ConfigError"
    assert done.stderr.startswith("error: ")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["train", "c", "--set", "a=1", "--set", "b=2"],
            {
                "config": "c",
                "assignments": ["a=1", "b=2"],
                "data_root": None,
                "output": Path("runs"),
                "device": "auto",
                "dry_run": False,
            },
        ),
        (["resume", "r", "--device", "cuda:1"], {"run": Path("r"), "device": "cuda:1"}),
        (["demo", "--output", "o"], {"output": Path("o"), "device": "auto"}),
        (
            ["evaluate", "m", "--set", "inference.overlap=0"],
            {
                "model": ModelUse(Path("m"), ("inference.overlap=0",)),
                "manifest": None,
                "fold": None,
                "data_root": None,
                "output": None,
            },
        ),
        (
            [
                "infer",
                "m",
                "a",
                "b",
                "--output",
                "o",
                "--format",
                "nifti,dicom-seg",
                "--series",
                "*Crop*",
                "--explain",
                "attention",
            ],
            {
                "model": ModelUse(Path("m")),
                "inputs": [Path("a"), Path("b")],
                "output": Path("o"),
                "formats": ["nifti", "dicom-seg"],
                "rule": SeriesRule(description="*Crop*"),
                "explain": "attention",
            },
        ),
    ],
)
def test_flags_reach_the_journey(
    arguments: list[str], expected: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    verb, seen = arguments[0], dict[str, Any]()
    stand_in = type(sys)(f"pipelines.{verb}")
    setattr(stand_in, verb, lambda **given: seen.update(given))
    monkeypatch.setitem(sys.modules, f"pipelines.{verb}", stand_in)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert seen == expected


def _perform(journey: Callable[[], object], capsys: pytest.CaptureFixture[str], **how: bool) -> tuple[int, str, str]:
    code = 0
    with warnings.catch_warnings():
        try:
            perform(journey, **how)
        except typer.Exit as end:
            code = end.exit_code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def _fail(error: BaseException) -> Callable[[], object]:
    def journey() -> object:
        raise error

    return journey


def test_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert _perform(lambda: None, capsys) == (0, "", "")
    assert _perform(_fail(ConfigError("key a")), capsys) == (2, "", "error: key a\n")
    assert _perform(_fail(ReadError("file b")), capsys) == (1, "", "error: file b\n")
    assert _perform(_fail(KeyboardInterrupt()), capsys) == (130, "", "\ninterrupted\n")
    assert _perform(_fail(BrokenPipeError()), capsys)[0] == 1


def test_json_alone_is_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    def journey() -> object:
        Console().say("for people")
        sys.stdout.write("from a package\n")
        return {"dice": float("nan"), "folder": Path("a"), "cases": ("b",)}

    code, out, err = _perform(journey, capsys, as_json=True)
    assert code == 0
    assert json.loads(out) == {"dice": None, "folder": "a", "cases": ["b"]}
    assert err == "for people\nfrom a package\n"


def test_a_bug_is_called_one_and_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError):
        perform(_fail(ZeroDivisionError("x")), as_json=True)
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"error": "ZeroDivisionError: x", "kind": "bug"}
    assert "this is a bug in medseg" in captured.err


def test_traceback_of_an_error_is_shown_on_demand(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Traceback" in _perform(_fail(ReadError("file b")), capsys, verbose=True)[2]


def test_a_reader_that_leaves_early_is_no_error() -> None:
    command_line = [sys.executable, "-m", "pipelines.command", "schema"]
    writer = subprocess.Popen(command_line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY)
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.close()
    complaint = writer.stderr.read()
    writer.stderr.close()
    assert writer.wait(timeout=60) == 1
    assert complaint == ""


def test_arrays_and_settings_become_plain_json() -> None:
    import numpy as np

    from medseg.tracking import TrackingConfig

    value = {
        1: np.float32(0.5),
        "a": np.arange(2),
        "n": np.float64("inf"),
        "s": {"x"},
        "c": TrackingConfig(name="none"),
    }
    expected = {"1": 0.5, "a": [0, 1], "n": None, "s": ["x"]}
    found = plain(value)
    assert {key: found[key] for key in expected} == expected
    assert found["c"]["name"] == "none"


def test_the_clock_begins_with_the_process() -> None:
    script = "from pipelines.process import STARTED_S; import time; print(time.monotonic() - STARTED_S)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert 0.02 < float(done.stdout) < 60
    assert time.monotonic() > STARTED_S


def test_schema_describes_what_a_config_may_hold(tmp_path: Path) -> None:
    content = json.loads(medseg("schema").stdout)
    assert content["additionalProperties"] is False
    assert "network" in content["properties"]
    assert medseg("schema", "dataset", "--output", str(tmp_path / "d.json")).returncode == 0
    assert "channels" in json.loads((tmp_path / "d.json").read_text())["properties"]


@pytest.mark.slow
def test_doctor_reports_versions_and_codecs() -> None:
    done = medseg("doctor", "--json")
    assert done.returncode == 0
    findings = {one["name"]: one for one in json.loads(done.stdout)["findings"]}
    assert {"torch", "cpu", "gpu", "memory", "dicom JPEG 2000", "mlflow store"} <= findings.keys()
    assert findings["dicom JPEG-LS"]["state"] == "ok"


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _progress(total: int | None, steps: int, step_s: float) -> list[str]:
    stream, clock = io.StringIO(), Clock()
    with Console(stream, clock).progress(total, "training") as progress:
        for step in range(steps):
            clock.now += step_s
            progress.advance(1, f"loss {step}")
    return stream.getvalue().splitlines()


def test_log_gets_a_line_each_tenth_with_rate_and_time_left() -> None:
    lines = _progress(100, 100, 0.5)
    assert len(lines) == 10
    assert lines[0] == "training 10/100 (10 %), 2.0/s, 45 s left, loss 9"
    assert lines[-1] == "training 100/100 (100 %), 2.0/s, 50 s in all, loss 99"


def test_log_gets_a_line_each_ten_seconds_of_slow_work() -> None:
    lines = _progress(1000, 10, 5.0)
    assert len(lines) == 5
    assert lines[0] == "training 2/1000 (0 %), 5.0 s each, 1 h 23 min left, loss 1"


def test_quick_work_is_one_line_in_a_log() -> None:
    assert _progress(1000, 1000, 0.0001) == ["training 1000/1000 (100 %), 10000.0/s, 0 s in all, loss 999"]


def test_work_of_unknown_length_is_counted() -> None:
    assert _progress(None, 3, 6.0) == ["training 2, 6.0 s each, 12 s in all, loss 1"]


def test_log_has_no_control_characters() -> None:
    stream = io.StringIO()
    console = Console(stream)
    console.say("case \x1b[31m1\x07\x9b [bold]")
    console.table(["a"], [["\x1b[2J"]])
    with console.progress(1, "x") as progress:
        progress.advance(1, "\r\x1b[K")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", stream.getvalue())
    assert stream.getvalue().startswith("case [31m1 [bold]\n")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_shows_a_bar_and_text_above_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    console = Console(stream)
    with console.progress(4, "training [x]") as progress:
        progress.advance(1, "loss [1]")
        console.say("a line [bold]")
        progress.advance(3)
    text = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue())
    assert "training [x]" in text
    assert "4/4" in text
    assert "loss [1]" in text
    assert "a line [bold]\n" in text


def test_table_aligns_numbers_to_the_right() -> None:
    stream = io.StringIO()
    Console(stream).table(["case", "dice"], [["a", 0.123456], ["long name", 10]], title="scores")
    assert stream.getvalue().splitlines() == [
        "scores",
        "case         dice",
        "---------  ------",
        "a          0.1235",
        "long name      10",
    ]
    Console(stream).table(["empty"], [])


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.6, "1 min 00 s"), (545, "9 min 05 s"), (12000, "3 h 20 min")]
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Shipped files of known names, and an empty working folder."""
    for name in ("configs/heart_unet.yaml", "configs/brain_unet.yaml", "data_manifests/heart/dataset.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("a: 1\n")
    monkeypatch.setattr(locations, "shipped", lambda kind: tmp_path / kind)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def test_a_name_finds_what_is_shipped(checkout: Path) -> None:
    assert locations.find_config("heart_unet") == checkout / "configs" / "heart_unet.yaml"
    assert locations.find_manifest("heart") == checkout / "data_manifests" / "heart"


def test_a_path_goes_before_a_name(checkout: Path) -> None:
    Path("heart_unet").write_text("b: 2\n")
    assert locations.find_config("heart_unet") == Path("heart_unet")
    Path("heart").mkdir()
    assert locations.find_manifest("heart") == checkout / "data_manifests" / "heart"  # holds no dataset.yaml
    Path("heart/dataset.yaml").write_text("c: 3\n")
    assert locations.find_manifest("heart") == Path("heart")
    assert locations.find_manifest("heart/dataset.yaml") == Path("heart")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("hart_unet", "did you mean 'heart_unet'?"),
        ("configs/heart_unet.yaml", "or give the shipped config by its name, 'heart_unet'"),
        ("mine.yml", "did you mean 'mine.yaml'?"),
        ("folder", "is a folder"),
    ],
)
def test_unknown_config_is_refused_with_near_names(checkout: Path, name: str, message: str) -> None:
    Path("mine.yaml").write_text("a: 1\n")
    Path("folder").mkdir()
    with pytest.raises(ConfigError, match=re.escape(message)):
        locations.find_config(name)


def test_unknown_manifest_is_refused_with_near_names(checkout: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'heart'"):
        locations.find_manifest("hearts")


def test_the_entry_point_turns_stray_errors_into_messages(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stray(**_: object) -> None:
        raise ReadError("file b")

    monkeypatch.setattr(command, "app", stray)
    monkeypatch.setattr(sys, "argv", ["medseg"])
    with pytest.raises(SystemExit) as caught:
        command.main()
    assert caught.value.code == 1
    assert capsys.readouterr().err == "error: file b\n"
