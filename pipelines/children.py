"""Starts the `medseg` command as a person would, in a process of its own, and gives its answer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pipelines
from medseg.errors import MedsegError, WriteError

_POLL_S = 0.1
_PATIENCE_S = 30.0  # for a child that was asked to stop, which ends its step first
_HOME = Path(pipelines.__file__).resolve().parents[1]
_IS_CHECKOUT = (_HOME / "pyproject.toml").is_file()  # an installed package is found without being told where
Medseg = Callable[[Sequence[str], Path, Callable[[], bool]], dict[str, Any]]


class ChildError(MedsegError):
    """A command that failed, in its own words."""


def medseg(arguments: Sequence[str], log: Path, is_asked: Callable[[], bool]) -> dict[str, Any]:
    """What `medseg ARGUMENTS --json` answers; the text that it prints for people goes to `log`.

    Raises ChildError with the command's own error. Where `is_asked` says that someone asked to stop, the child is
    stopped and KeyboardInterrupt raised; a child that had succeeded by then is answered for.
    """
    # -P and the path: this very program, whatever lies in the working folder.
    command = [sys.executable, "-P", "-m", "pipelines.command", *arguments, "--json"]
    try:
        told = log.open("w", encoding="utf-8")
    except OSError as error:
        raise WriteError(f"{log}: cannot be written ({error.strerror}); choose another --output") from error
    with told, tempfile.TemporaryFile("w+", encoding="utf-8") as out:
        child = subprocess.Popen(  # noqa: S603 - our own program, arguments as a list
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=told, text=True,
            env=surroundings(os.environ, _HOME if _IS_CHECKOUT else None), start_new_session=True,
        )  # fmt: skip
        try:
            while child.poll() is None and not is_asked():
                time.sleep(_POLL_S)
            if child.poll() is None:
                child.terminate()
                _await(child)
            if is_asked() and child.returncode != 0:
                raise KeyboardInterrupt
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        out.seek(0)
        return _answer(child.returncode, out.read(), log)


def surroundings(environment: Mapping[str, str], checkout: Path | None) -> dict[str, str]:
    """The environment of a child, in which a checkout is found first.

    An installed package needs no such path: it would put site-packages before Python's own library.
    """
    if checkout is None:
        return dict(environment)
    path = os.pathsep.join(filter(None, (str(checkout), environment.get("PYTHONPATH"))))
    return {**environment, "PYTHONPATH": path}


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
