"""One interface for long work: a bar on a terminal, plain lines in a log, silence in a library.

Libraries take `progress: Progress = SILENT`, open a stage around a loop and advance it:

    with progress.stage("encode strings", total=len(texts), unit="strings") as advance:
        for batch in batches:
            ...
            advance(len(batch))
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol, TextIO

Advance = Callable[[float], None]


class Progress(Protocol):
    """Where the stages of a run tell how far they are."""

    def stage(self, name: str, total: float | None = None, unit: str = "") -> AbstractContextManager[Advance]:
        """Open a stage; the value that `with` gives is called with the amount of work just done."""
        ...

    def note(self, message: str) -> None:
        """Say one line to the user."""
        ...


class SilentProgress:
    """For library use and tests."""

    @contextmanager
    def stage(self, name: str, total: float | None = None, unit: str = "") -> Iterator[Advance]:
        """Do nothing, silently."""
        yield lambda amount: None

    def note(self, message: str) -> None:
        """Drop the line."""


SILENT = SilentProgress()


def _human(value: float) -> str:
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if value >= limit:
            return f"{value / limit if suffix != 'k' else value / 1e3:.1f}{suffix}"
    return f"{value:.0f}" if value >= 10 or value == int(value) else f"{value:.1f}"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"


class PlainProgress:
    """Lines with a rate and the time left, at most one every `interval` seconds: for logs and clusters."""

    def __init__(self, stream: TextIO | None = None, interval: float = 10.0, show: bool = True) -> None:
        self.stream, self.interval, self.show = stream or sys.stderr, interval, show

    @contextmanager
    def stage(self, name: str, total: float | None = None, unit: str = "") -> Iterator[Advance]:
        """Print where the stage stands now and then, and one closing line."""
        began = last = time.monotonic()
        done = 0.0

        def advance(amount: float) -> None:
            nonlocal done, last
            done += amount
            now = time.monotonic()
            if now - last < self.interval:
                return
            last = now
            rate = done / max(now - began, 1e-9)
            left = f", {_clock((total - done) / rate)} left" if total and rate > 0 else ""
            part = f"{_human(done)}/{_human(total)}" if total else _human(done)
            self.note(f"{name}: {part} {unit}, {_human(rate)}/s{left}".replace(" ,", ","))

        yield advance
        spent = time.monotonic() - began
        if self.show:
            amount = f", {_human(done)} {unit}".rstrip() if done else ""
            self.note(f"{name}: done in {spent:.1f} s{amount}")

    def note(self, message: str) -> None:
        """Print one line at once."""
        if self.show:
            print(message, file=self.stream, flush=True)


class RichProgress:
    """A bar per running stage on a terminal, with a rate and the time left."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(stderr=True, highlight=False)

    @contextmanager
    def stage(self, name: str, total: float | None = None, unit: str = "") -> Iterator[Advance]:
        """Show a live bar that leaves one line behind."""
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bars

        began, done = time.monotonic(), 0.0
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=self.console, transient=True) as bars:
            task = bars.add_task(name, total=total, rate="")

            def advance(amount: float) -> None:
                nonlocal done
                done += amount
                rate = done / max(time.monotonic() - began, 1e-9)
                bars.update(task, advance=amount, rate=f"{_human(done)} {unit}, {_human(rate)}/s")

            yield advance
        amount = f", {_human(done)} {unit}".rstrip() if done else ""
        self.console.print(f"{name}: {time.monotonic() - began:.1f} s{amount}", style="dim")

    def note(self, message: str) -> None:
        """Print one line above the bars."""
        self.console.print(message, markup=False)


def for_terminal(quiet: bool = False) -> Progress:
    """The right kind for where standard error goes."""
    if quiet:
        return SILENT
    return RichProgress() if sys.stderr.isatty() else PlainProgress()
