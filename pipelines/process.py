"""One process of the command: its surroundings before heavy imports, and its errors and exit code at the end."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import typer

from medseg.errors import ConfigError, MedsegError
from pipelines.world import is_silent

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def _age_s() -> float:
    """How long this process has been running, Python's own start included; proc(5), /proc/self/stat, field 22."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        began_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began_s)
    except (OSError, AttributeError):  # no Linux
        return 0.0


STARTED_S = time.monotonic() - _age_s()  # when this process began, on time.monotonic()'s clock; max_minutes counts on

# What must stand in the environment before torch, MONAI and MLflow are imported; what a person has set stays.
SURROUNDINGS = {
    "OMP_WAIT_POLICY": "PASSIVE",  # threads sleep while they wait: spinning beside other work costs a factor 2 to 4
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",  # deterministic cuBLAS: "Results reproducibility" in NVIDIA's cuBLAS manual
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds; by default a dead server holds a call for four minutes
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
NOISY_LOGGERS = ("mlflow", "alembic", "monai", "matplotlib", "pydicom", "highdicom", "PIL", "git", "urllib3")


def prepare(verbose: bool) -> None:
    """Sets up environment, logging and warnings. Call before anything heavy is imported."""
    for name, value in SURROUNDINGS.items():
        os.environ.setdefault(name, value)
    logging.basicConfig(
        level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
    )
    if verbose:
        return
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")  # MLflow sets its loggers' levels anew when imported
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)  # what matters is raised, and told once, by our own message
    for category in (FutureWarning, DeprecationWarning):
        warnings.simplefilter("ignore", category)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"(monai|mlflow|highdicom|pydicom)\b")


def checked_device(device: str) -> str:
    """What `--device` was given. Raises ConfigError for what is no device's name; none is looked for."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise ConfigError(f"--device {device!r} is not known; choose auto, cpu, cuda or cuda:N")
    return device


def perform(journey: Callable[[], object], as_json: bool = False, verbose: bool = False) -> None:
    """Runs a journey; under `--json` its result alone goes to standard output, as JSON, and all text elsewhere.

    Raises typer.Exit with 1 or 2 for a MedsegError and 130 for Ctrl-C; anything else is a bug and goes on upwards.
    """
    prepare(verbose)
    out = sys.stdout
    try:
        with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            result = journey()
        if as_json and not is_silent():
            _write_json(out, result)
        out.flush()
    except MedsegError as error:
        raise typer.Exit(report(error, out if as_json else None, verbose)) from error
    except KeyboardInterrupt:
        sys.stderr.write("\ninterrupted\n")
        if as_json:
            _write_json(out, {"error": "interrupted", "kind": "KeyboardInterrupt"})
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - the reader is gone; the last flush must not complain
        raise typer.Exit(FAILED) from None
    except Exception as error:
        if as_json:
            _write_json(out, {"error": f"{type(error).__name__}: {error}", "kind": "bug"})
        sys.stderr.write("error: this is a bug in medseg; please report it with the lines below\n")
        raise


def report(error: MedsegError, out: TextIO | None, verbose: bool = False) -> int:
    """Tells a person what went wrong (and `out`, as JSON); the exit code that fits."""
    if verbose:
        traceback.print_exception(error)
    sys.stderr.write(f"error: {error}\n")
    if out is not None:
        _write_json(out, {"error": str(error), "kind": type(error).__name__})
    return USAGE if isinstance(error, ConfigError) else FAILED


def _write_json(out: TextIO, value: object) -> None:
    out.write(json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """`value` in JSON's own types: paths and other objects as text, NaN and infinities as null."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Path():
            return str(value)
        case Mapping():
            return {str(key): plain(entry) for key, entry in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(entry) for entry in value]
        case _ if hasattr(value, "tolist"):  # an array or a scalar of NumPy or torch
            return plain(value.tolist())
        case _ if hasattr(value, "model_dump"):
            return plain(value.model_dump(mode="json"))
        case _:
            return str(value)


@contextlib.contextmanager
def last_resort() -> Iterator[None]:
    """Catches what a sub-command let through, so that a MedsegError never ends in a traceback."""
    try:
        yield
    except MedsegError as error:
        out = sys.stdout if "--json" in sys.argv else None
        sys.exit(report(error, out, verbose="-v" in sys.argv))
