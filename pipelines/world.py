"""The processes that torchrun started to train one network together, on one machine or several."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from medseg.errors import TrainingError
from pipelines.console import Console

if TYPE_CHECKING:
    import torch
    from torch.distributed import Store

    from medseg.devices import World

_MEETING_S = 1800.0  # that all processes have to come, as torch itself gives them
_LONGEST = 4096  # bytes of a path, which processes tell one another


def is_one_of_many() -> bool:
    """Whether torchrun started this process beside others."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_silent() -> bool:
    """Whether another process speaks for this one."""
    return is_one_of_many() and os.environ.get("RANK", "0") != "0"


def console_of_all() -> Console:
    """A console of which the first process's alone can be read."""
    return Console(open(os.devnull, "w")) if is_silent() else Console()


def processes_here() -> int:
    """How many share this machine's cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if is_one_of_many() else 1


@contextmanager
def joined(device: str) -> Iterator[tuple[torch.device, World]]:
    """The device of this process, and those that it works with; on CUDA each has its own."""
    import torch

    from medseg.devices import World, choose_device

    if not is_one_of_many():
        yield choose_device(device), World()
        return
    if device in ("auto", "cuda") and torch.cuda.is_available():
        device = f"cuda:{os.environ.get('LOCAL_RANK', '0')}"
    target = choose_device(device)
    if target.type == "cuda":
        torch.cuda.set_device(target)
    store, rank, size = next(torch.distributed.rendezvous("env://"))
    store = torch.distributed.PrefixStore(_meeting(store, rank, size), store)
    backend = "nccl" if target.type == "cuda" else "gloo"
    torch.distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
    try:
        yield target, World(rank, size)
    finally:
        torch.distributed.destroy_process_group()


def _meeting(store: Store, rank: int, size: int) -> str:
    """A name for this meeting of the processes, the same in all of them and never used before.

    torchrun's store outlives the processes, so that after a restart the addresses of dead ones are in it. The first
    process therefore names the meeting, and tells each other one in answer to a word that only a living one can know.
    """
    name = uuid.uuid4().hex
    if rank:
        word = uuid.uuid4().hex
        store.set(f"medseg/here/{rank}", word)
        name = store.get(f"medseg/answer/{word}").decode()
        store.set(f"medseg/heard/{name}/{rank}", "")
        return name
    until = time.monotonic() + _MEETING_S
    for other in range(1, size):
        while not store.check([f"medseg/heard/{name}/{other}"]):
            if time.monotonic() > until:
                raise TrainingError(
                    f"process {other} of {size} has not come within {_MEETING_S / 60:g} minutes; see its log"
                )
            store.set(f"medseg/answer/{store.get(f'medseg/here/{other}').decode()}", name)
            time.sleep(0.05)
    return name


def agreed_folder(folder: Path, world: World, device: torch.device) -> Path:
    """The first process's folder, in all of them."""
    import torch

    if world.size == 1:
        return folder
    told = os.fsencode(folder.resolve())[:_LONGEST]
    letters = torch.zeros(_LONGEST, dtype=torch.uint8, device=device)
    letters[: len(told)] = torch.tensor(list(told), dtype=torch.uint8, device=device)
    return Path(os.fsdecode(bytes(world.first(letters).cpu().tolist()).rstrip(b"\0")))


def begun_before(output: Path) -> Path | None:
    """The run that torchrun's processes were training when one of them died and all were started again."""
    note = _note(output)
    if not is_one_of_many() or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0" or not note.is_file():
        return None
    return Path(note.read_text(encoding="utf-8"))


def note_begun(output: Path, run: Path) -> None:
    """Leaves word of the run for processes that may be started again."""
    from medseg.io.atomic import atomic_write_text

    if is_one_of_many():
        atomic_write_text(_note(output), str(run.resolve()))


def _note(output: Path) -> Path:
    """Named after torchrun's own id, which only letters and digits enter."""
    name = "".join(letter for letter in os.environ.get("TORCHELASTIC_RUN_ID", "") if letter.isalnum())
    return output / f".torchrun-{name}"
