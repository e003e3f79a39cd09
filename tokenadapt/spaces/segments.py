"""One file of cached vectors: written whole or not at all, checked when opened, read through memory mapping.

Layout, little-endian: magic (8), n and d (uint32), item size (uint32), digest of what follows the header (16),
zeros up to 64 bytes; n keys of 16 bytes; n x d floats. Segments are never changed once they have their name, so any
number of processes may add and read them without a lock.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

MAGIC: Final = b"TAVEC001"
HEADER: Final = 64
KEY: Final = 16
SUFFIX: Final = ".vectors"
STALE_SECONDS: Final = 3600.0  # a temporary file of this age belongs to no living writer


@dataclass(frozen=True)
class Segment:
    """An opened segment: keys in order of their rows."""

    keys: tuple[bytes, ...]
    vectors: NDArray[Any]  # (n, d) float16 or float32, memory-mapped


def write_segment(folder: Path, keys: Sequence[bytes], vectors: NDArray[Any]) -> Path:
    """Add a segment to `folder`; a reader sees all of it or nothing, whenever this process dies."""
    body = [b"".join(keys), np.ascontiguousarray(vectors).tobytes()]
    digest = hashlib.blake2b(digest_size=KEY)
    for part in body:
        digest.update(part)
    shape = struct.pack("<III", len(keys), vectors.shape[1], vectors.dtype.itemsize)
    folder.mkdir(parents=True, exist_ok=True)
    name = uuid.uuid4().hex
    temporary = folder / f".{name}.tmp"
    try:
        with temporary.open("wb") as file:
            file.write((MAGIC + shape + digest.digest()).ljust(HEADER, b"\0"))
            for part in body:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        final = folder / f"{name}{SUFFIX}"
        temporary.replace(final)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
    return final


def read_segment(path: Path) -> Segment:
    """Open a segment; ValueError where a byte of it is not what was written."""
    with path.open("rb") as file:
        head = file.read(HEADER)
        if len(head) != HEADER or head[:8] != MAGIC:
            raise ValueError("no segment of vectors")
        rows, width, item = struct.unpack("<III", head[8:20])
        size = HEADER + rows * KEY + rows * width * item
        if not rows or not width or item not in (2, 4) or os.fstat(file.fileno()).st_size != size:
            raise ValueError("its size is not what its head says")
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if hashlib.blake2b(memoryview(mapped)[HEADER:], digest_size=KEY).digest() != head[20 : 20 + KEY]:
        raise ValueError("its contents do not have the digest that its head says")
    names = mapped[HEADER : HEADER + rows * KEY]
    keys = tuple(names[at : at + KEY] for at in range(0, len(names), KEY))
    flat = np.frombuffer(mapped, dtype=f"<f{item}", offset=HEADER + rows * KEY)
    return Segment(keys, flat.reshape(rows, width))


def remove_stale(folder: Path) -> None:
    """Delete what dead writers left half written."""
    for path in folder.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE_SECONDS:
                path.unlink()
