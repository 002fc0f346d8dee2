"""Starts the `medseg` command as a person would, in a process of its own, and gives its answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pipelines
from medseg.errors import MedsegError, WriteError
from pipelines.stopping import patient_signals

_POLL_S = 0.1
_PATIENCE_S = 30.0  # for a child that was asked to stop, which ends its step first
_HOME = Path(pipelines.__file__).resolve().parents[1]


class ChildError(MedsegError):
    """A command that failed, in its own words."""


def medseg(arguments: Sequence[str], log: Path) -> dict[str, Any]:
    """What `medseg ARGUMENTS --json` answers; the text that it prints for people goes to `log`.

    Raises ChildError with the command's own error. Ctrl-C stops the child first, then raises KeyboardInterrupt.
    """
    # -P and the path: this very program, whatever lies in the working folder.
    command = [sys.executable, "-P", "-m", "pipelines.command", *arguments, "--json"]
    path = os.pathsep.join(filter(None, (str(_HOME), os.environ.get("PYTHONPATH"))))
    try:
        told = log.open("w", encoding="utf-8")
    except OSError as error:
        raise WriteError(f"{log}: cannot be written ({error.strerror}); choose another --output") from error
    with told, tempfile.TemporaryFile("w+", encoding="utf-8") as out, patient_signals() as is_asked:
        child = subprocess.Popen(  # noqa: S603 - our own program, arguments as a list
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=told, text=True,
            env={**os.environ, "PYTHONPATH": path}, start_new_session=True,
        )  # fmt: skip
        try:
            while child.poll() is None and not is_asked():
                time.sleep(_POLL_S)
            if is_asked():
                child.terminate()
                _await(child)
                raise KeyboardInterrupt
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        out.seek(0)
        return _answer(child.returncode, out.read(), log)


def _await(child: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def _answer(code: int, text: str, log: Path) -> dict[str, Any]:
    """The JSON of a command that succeeded. Raises ChildError."""
    try:
        answer = json.loads(text)
    except ValueError:
        answer = None
    if code == 0 and isinstance(answer, dict):
        return answer
    if code < 0:
        raise ChildError(f"ended by signal {-code}, as the system does where memory runs out; see {log}")
    raise ChildError(str(answer["error"]) if isinstance(answer, dict) and "error" in answer else f"failed; see {log}")
