"""The command line run inside the test's process, and what a refusal must look like."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from tokenadapt.cli import main


@dataclass(frozen=True)
class Said:
    """What a command left on its three channels."""

    code: int
    out: str
    err: str


def tokenadapt(*words: object) -> Said:
    """Run `tokenadapt WORDS` through the program's own entry point."""
    out, err = io.StringIO(), io.StringIO()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        with (
            mock.patch.object(sys, "argv", ["tokenadapt", *map(str, words)]),
            mock.patch.dict(os.environ),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            main()
    except SystemExit as stop:
        return Said(int(stop.code or 0), out.getvalue(), err.getvalue())
    finally:
        signal.signal(signal.SIGTERM, handler)
    raise AssertionError("main() ends by SystemExit")


def refused(code: int, *words: object) -> str:
    """Run a command that must fail: one sentence, one hint, nothing on standard output. Gives the sentence and hint."""
    said = tokenadapt(*words)
    assert said.code == code, said
    lines = said.err.splitlines()
    at = [number for number, line in enumerate(lines) if line.startswith("Error: ")]
    assert len(at) == 1, said.err
    sentence, hint = lines[at[0]], lines[at[0] + 1 :]
    assert sentence.endswith((".", ")")), sentence
    assert len(hint) == 1, said.err
    assert hint[0].startswith("Hint: "), said.err
    assert "Traceback" not in said.err
    assert "Errno" not in said.err
    assert said.out == ""
    return f"{sentence}\n{hint[0]}"


@contextlib.contextmanager
def untouched(*folders: Path) -> Iterator[None]:
    """Everything under `folders` is byte for byte as it was, hidden files included."""
    before = [contents(folder) for folder in folders]
    yield
    assert [contents(folder) for folder in folders] == before


def contents(folder: Path) -> dict[str, bytes | str | None]:
    """Every path under a folder with its bytes; None for folders, the target for links."""
    return {
        str(path.relative_to(folder)): os.readlink(path) if path.is_symlink() else _bytes(path)
        for path in sorted(folder.rglob("*"))
    }


def _bytes(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None
