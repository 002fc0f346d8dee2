"""What a person reads while a program runs: live bars on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress

LINE_EVERY_S = 10.0  # a log gets a line at least this often
LINE_EVERY_SHARE = 0.1  # or whenever this share of the work is done,
LINE_PAUSE_S = 1.0  # but not more often than this


class Steps(Protocol):
    """Progress of one piece of work."""

    def advance(self, n: int = 1, note: str = "") -> None:
        """`n` more steps are done; `note` says what is worth knowing of them, for instance a loss."""


class Console:
    """Text, tables and progress for one stream.

    None means standard output as it is now; under `--json` the command has turned that towards standard error.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream or sys.stdout
        self._clock = clock
        self._live: Progress | None = None

    def say(self, text: str = "") -> None:
        """Prints text as it is, without markup and without characters that could steer a terminal."""
        clean = "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")
        if self._live is not None:
            self._live.console.print(clean, markup=False, highlight=False, soft_wrap=True)
            return
        self._stream.write(clean + "\n")
        self._stream.flush()

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[object]], title: str = "") -> None:
        """Prints aligned columns, numbers to the right."""
        if title:
            self.say(title)
        for line in _table_lines(headers, rows):
            self.say(line)

    @contextmanager
    def progress(self, total: int | None, description: str) -> Iterator[Steps]:
        """Shows work of `total` steps (None: unknown) with its rate and the time left."""
        if self._stream.isatty():
            with self._bar(total, description) as steps:
                yield steps
        else:
            yield _Lines(self.say, self._clock, total, description)

    @contextmanager
    def _bar(self, total: int | None, description: str) -> Iterator[Steps]:
        from rich.console import Console as Terminal
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TextColumn("{task.completed:g}/{task.total}", markup=False),
            TextColumn("{task.fields[rate]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
        )
        with Progress(*columns, console=Terminal(file=self._stream)) as live:
            self._live = live
            try:
                yield _Bar(live, self._clock, total, description)
            finally:
                self._live = None


class _Bar:
    """Steps as a live bar of rich."""

    def __init__(self, live: Progress, clock: Callable[[], float], total: int | None, description: str) -> None:
        self._live, self._clock = live, clock
        self._start, self._done, self._note = clock(), 0, ""
        self._task = live.add_task(description, total=total, rate="", note="")

    def advance(self, n: int = 1, note: str = "") -> None:
        self._done += n
        rate = _rate(self._done, self._clock() - self._start)
        self._note = note or self._note
        self._live.update(self._task, advance=n, rate=rate, note=self._note)


class _Lines:
    """Steps as plain lines: one at a tenth of the work or every ten seconds, and one at the end."""

    def __init__(
        self, say: Callable[[str], None], clock: Callable[[], float], total: int | None, description: str
    ) -> None:
        self._say, self._clock, self._total, self._description = say, clock, total, description
        self._start = self._shown_at = clock()
        self._done = self._shown = 0

    def advance(self, n: int = 1, note: str = "") -> None:
        self._done += n
        now = self._clock()
        pause = now - self._shown_at
        total = self._total or 0
        is_share = total > 0 and self._done - self._shown >= LINE_EVERY_SHARE * total and pause >= LINE_PAUSE_S
        is_end = self._done == total
        if is_end or is_share or pause >= LINE_EVERY_S:
            self._say(self._line(now - self._start, note))
            self._shown_at, self._shown = now, self._done

    def _line(self, elapsed: float, note: str) -> str:
        parts = [f"{self._description} {self._done}"]
        if self._total:
            parts[0] += f"/{self._total} ({100 * self._done // self._total} %)"
        rate = _rate(self._done, elapsed)
        parts += [rate] if rate else []
        if self._total and 0 < self._done < self._total:
            parts.append(f"{duration(elapsed / self._done * (self._total - self._done))} left")
        else:
            parts.append(f"{duration(elapsed)} in all")
        return ", ".join([*parts, note] if note else parts)


def duration(seconds: float) -> str:
    """A length of time for people: "42 s", "9 min 05 s", "3 h 20 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _rate(done: int, elapsed: float) -> str:
    if done <= 0 or elapsed <= 0:
        return ""
    each = elapsed / done
    return f"{each:.1f} s each" if each > 1 else f"{1 / each:.1f}/s"


def _table_lines(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(headers, *cells, strict=True)]
    is_number = [
        bool(rows) and all(isinstance(row[index], int | float) for row in rows) for index in range(len(headers))
    ]

    def line(texts: Sequence[str]) -> str:
        padded = (
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(texts, widths, is_number, strict=True)
        )
        return "  ".join(padded).rstrip()

    return [line(headers), "  ".join("-" * width for width in widths), *map(line, cells)]


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
