"""What every command shares: how much to say, where to log, and tables for people."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tokenadapt.errors import RequestError
from tokenadapt.progress import Progress, for_terminal


@dataclass(frozen=True)
class Session:
    """The group's options, handed to commands as `ctx.obj` (`@click.pass_obj`)."""

    verbose: bool = False
    quiet: bool = False
    log_file: str | None = None
    debug: bool = False

    def start(self) -> None:
        """Set the package's own logger up; the root logger is the user's."""
        logger = logging.getLogger("tokenadapt")
        logger.handlers.clear()
        logger.setLevel(logging.DEBUG)
        logger.propagate = False
        console = logging.StreamHandler()
        console.setLevel(logging.ERROR if self.quiet else logging.INFO if self.verbose else logging.WARNING)
        console.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
        logger.addHandler(console)
        self._quieten_libraries()
        if self.log_file:
            try:
                file = logging.FileHandler(self.log_file, encoding="utf-8")
            except OSError as error:
                raise RequestError(
                    f"The log file {self.log_file} cannot be written ({error.strerror}).",
                    "Name a file in a folder that exists and that you may write.",
                ) from error
            file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
            logger.addHandler(file)

    def _quieten_libraries(self) -> None:
        """Before they are imported: their own lines and bars say nothing that ours do not.

        Bars of downloads stay on a terminal, where nothing else shows how far a download is.
        """
        if not self.verbose:
            os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        if self.quiet or not sys.stderr.isatty():
            os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

    def progress(self) -> Progress:
        """The progress that fits where standard error goes."""
        return for_terminal(self.quiet)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[int] = ()) -> None:
    """Print a table for people on standard output; columns listed in `right` are right-aligned."""
    from rich.console import Console
    from rich.table import Table

    drawn = Table(title=title or None, title_justify="left", header_style="bold", box=None, pad_edge=False)
    for index, column in enumerate(columns):
        drawn.add_column(column, justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*(str(cell) for cell in row))
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 160
    console.print(drawn)


def duration(seconds: float) -> str:
    """An estimated time for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"


def size(count: float) -> str:
    """Bytes for people."""
    for limit, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= limit:
            return f"{count / limit:.1f} {unit}"
    return f"{count:.0f} bytes"
