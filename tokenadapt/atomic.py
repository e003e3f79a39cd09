"""A folder appears whole or not at all: written beside its destination, synced, renamed."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokenadapt.errors import RequestError


@contextmanager
def staged_folder(destination: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a staging folder beside `destination`; when the block ends without an error it becomes `destination`.

    Raises RequestError where `destination` exists and `overwrite` was not asked for.
    """
    destination = Path(os.path.abspath(destination))
    if destination.exists() and not overwrite:
        raise RequestError(f"The output {destination} exists already.", "Name another output, or say --overwrite.")
    destination.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{destination.name}.tokenadapt-", dir=destination.parent))
    try:
        yield staging
        if destination.exists():
            shutil.rmtree(destination)
        staging.rename(destination)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
